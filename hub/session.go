package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// session is an upload in parts: the offer that it follows and the tags of the parts that are there. It is kept in a file of
// lines of JSON, the offer and then the parts as they come, so that a killed upload goes on.
type session struct {
	offer
	path    string
	refused bool // the parts could not be joined, once
	best    int  // the most parts that were there

	mu   sync.Mutex // for all below
	tags []string   // "" for a part that is missing; nil without an offer
	dead bool       // the storage does not take the offer's addresses any more
	next int        // the first part that nobody has taken
	file *os.File
}

// tagged is a line of a session's file.
type tagged struct {
	Part int    `json:"part"` // from 1 on
	Tag  string `json:"etag"`
}

// resume is the session that an earlier run has left, or one without an offer.
func (u *large) resume() *session {
	name := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s", u.c.Endpoint, u.repo.Name, u.sha256))
	s := &session{path: filepath.Join(u.state, "hf-"+hex.EncodeToString(name[:16]))}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return s
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if json.Unmarshal(first, &s.offer) != nil || s.Whole != "" || !u.sound(&s.offer) {
		return s
	}
	s.tags = make([]string, len(s.Parts))
	for text := range bytes.Lines(rest) {
		var p tagged
		if json.Unmarshal(text, &p) == nil && p.Part >= 1 && p.Part <= len(s.tags) { // the last line may be half of one
			s.tags[p.Part-1] = p.Tag
		}
	}
	return s
}

// id is what the storage calls the upload that an offer in parts is for.
func (o *offer) id() string {
	if at, err := url.Parse(o.Parts[0]); err == nil && at.Query().Has("uploadId") {
		return at.Query().Get("uploadId")
	}
	return strings.Join(o.Parts, "\n")
}

// adopt takes a new offer: for its addresses where it is for the same upload, else where the session's own have expired.
// Otherwise the session's upload goes on, so that what it has sent is not lost.
func (s *session) adopt(o *offer) error {
	same := s.tags != nil && s.Size == o.Size && len(s.Parts) == len(o.Parts) && s.id() == o.id()
	if s.tags == nil || s.dead && !same {
		s.tags = make([]string, len(o.Parts))
		same = true
	}
	if same {
		s.offer = *o
	}
	s.dead, s.next = false, 0
	return s.write()
}

// write puts the session into its file, which only the user can read since the addresses are keys.
func (s *session) write() error {
	s.close()
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	err := e.Encode(s.offer)
	for i, tag := range s.tags {
		if tag != "" {
			err = errors.Join(err, e.Encode(tagged{i + 1, tag}))
		}
	}
	if err == nil {
		err = writeSecret(s.path, text.Bytes())
	}
	if err == nil {
		s.file, err = os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND, 0)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.path, obstacle(err))
	}
	return nil
}

// record notes that a part is there.
func (s *session) record(i int, tag string) error {
	line, err := json.Marshal(tagged{i + 1, tag})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tags[i] = tag
	if _, err := s.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", s.path, obstacle(err))
	}
	return nil
}

// take is the next part that is missing, -1 for none.
func (s *session) take() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.dead && s.next < len(s.tags) {
		s.next++
		if s.tags[s.next-1] == "" {
			return s.next - 1
		}
	}
	return -1
}

// expire ends the taking of parts.
func (s *session) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

// length is the bytes of a part of a file.
func (s *session) length(i int, size int64) int64 { return min(s.Size, size-int64(i)*s.Size) }

// there is what has come of a file.
func (s *session) there(size int64) (parts int, bytes int64) {
	for i, tag := range s.tags {
		if tag != "" {
			parts, bytes = parts+1, bytes+s.length(i, size)
		}
	}
	return parts, bytes
}

func (s *session) close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// drop forgets the session.
func (s *session) drop() error {
	s.close()
	s.tags = nil
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", s.path, obstacle(err))
	}
	return nil
}

// partsOnTheWay is the share of a file's parts that may be on the way at once, one in so many: a killed process loses them.
const partsOnTheWay = 12

// sendParts sends the parts that are missing and joins them. It tells whether more came to be there than ever before, and
// returns errStale where another offer is needed.
func (u *large) sendParts(ctx context.Context, s *session, o *offer) (gained bool, err error) {
	if err := s.adopt(o); err != nil {
		return false, err
	}
	parts, bytes := s.there(u.size)
	s.best = max(s.best, parts)
	u.count(bytes - u.told.Load())
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	for range min(u.c.workers, max(1, len(s.tags)/partsOnTheWay)) {
		workers.Go(func() {
			for i := s.take(); i >= 0 && ctx.Err() == nil; i = s.take() {
				if err := u.sendPart(ctx, s, i); errors.Is(err, errStale) {
					s.expire() // what the others have on the way may arrive still
				} else if err != nil {
					stop(err)
				}
			}
		})
	}
	workers.Wait()
	parts, _ = s.there(u.size)
	gained, s.best = parts > s.best, max(parts, s.best)
	switch {
	case ctx.Err() != nil:
		return gained, context.Cause(ctx)
	case s.dead:
		return gained, errStale
	}
	return gained, u.join(ctx, s)
}

// sendPart sends a part and notes it.
func (u *large) sendPart(ctx context.Context, s *session, i int) error {
	tag, err := u.piece(ctx, s.Parts[i], int64(i)*s.Size, s.length(i, u.size))
	if err != nil {
		return err
	}
	if tag == "" {
		return errors.New("the storage does not say what it got; check the proxy")
	}
	return s.record(i, tag)
}

// join lets the storage make one of the parts. Where that is refused it may have been done already, or the address may have
// expired, which the next offer tells; refused twice, the parts are given up.
func (u *large) join(ctx context.Context, s *session) error {
	at, err := url.Parse(s.Complete)
	if err != nil {
		return err
	}
	type numbered struct {
		Number int    `json:"partNumber"`
		Tag    string `json:"etag"`
	}
	var parts []numbered
	for i, tag := range s.tags {
		parts = append(parts, numbered{i + 1, tag})
	}
	err = u.c.settle(ctx, at, lfsType, map[string]any{"oid": u.sha256, "parts": parts}, func(resp *http.Response) error {
		if err := u.c.passing(resp); err != nil {
			return err
		}
		return errStale
	})
	if errors.Is(err, errStale) {
		if s.refused {
			return errors.Join(err, s.drop())
		}
		s.refused, s.dead = true, true
	}
	return err
}
