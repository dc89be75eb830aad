package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// large is a file on its way to the hub's storage, by the protocol of git LFS.
type large struct {
	*Repository
	identity
	file *os.File
	add  func(int64)
	told atomic.Int64 // bytes that add was told
}

// offer is the hub's answer to how an object can come to the storage. All its addresses are keys.
type offer struct {
	Whole    string   `json:"whole,omitempty"`    // takes the whole content, "" where it is to come in parts
	Parts    []string `json:"parts,omitempty"`    // take a part each
	Size     int64    `json:"size,omitempty"`     // bytes of a part but the last
	Complete string   `json:"complete,omitempty"` // joins the parts
	Verify   string   `json:"verify,omitempty"`   // is told that the content is there, "" where nobody wants to know
}

// errStale is an answer of the storage that says that the offer does not hold any more.
var errStale = errors.New("the storage does not take the links that the hub gives")

// store brings a file's content to the storage, unless it is there.
func (r *Repository) store(ctx context.Context, f *os.File, d identity, add func(int64)) error {
	u := &large{Repository: r, identity: d, file: f, add: add}
	s := u.resume()
	defer s.close()
	const most = 3
	for useless := 0; useless < most; useless++ {
		o, err := u.ask(ctx)
		if err != nil {
			return err
		}
		if o == nil {
			u.count(u.size - u.told.Load())
			return s.drop()
		}
		gained := false
		if o.Whole != "" {
			err = u.sendWhole(ctx, o)
		} else {
			gained, err = u.sendParts(ctx, s, o)
		}
		if err == nil {
			err = u.verify(ctx, o)
			return errors.Join(err, s.drop())
		}
		if !errors.Is(err, errStale) {
			return err
		}
		if gained {
			useless = -1
		}
	}
	return fmt.Errorf("%w, %d times in a row; check this machine's clock and the proxy, and run again to go on from here", errStale, most)
}

// count tells bytes that are there now, or were lost.
func (u *large) count(n int64) {
	u.told.Add(n)
	u.add(n)
}

// ask asks the hub for an offer, nil where the content is in the storage.
func (u *large) ask(ctx context.Context) (*offer, error) {
	at, err := u.at(u.repo.page() + ".git/info/lfs/objects/batch")
	if err != nil {
		return nil, err
	}
	question := map[string]any{"operation": "upload", "transfers": []string{"basic", "multipart"}, "hash_algo": "sha256",
		"objects": []any{map[string]any{"oid": u.sha256, "size": u.size}}, "ref": map[string]any{"name": u.repo.Revision}}
	type action struct {
		Href   string
		Header map[string]any
	}
	var answer struct {
		Objects []struct {
			OID     string
			Actions *struct{ Upload, Verify *action }
			Error   *struct {
				Code    int
				Message string
			}
		}
	}
	if err := u.c.post(ctx, at, lfsType, question, &answer, u.refusal); err != nil {
		return nil, err
	}
	if len(answer.Objects) != 1 || answer.Objects[0].OID != u.sha256 {
		return nil, u.confused(at)
	}
	told := answer.Objects[0]
	switch {
	case told.Error != nil:
		return nil, u.denied(told.Error.Code, told.Error.Message)
	case told.Actions == nil || told.Actions.Upload == nil:
		return nil, nil
	}
	o := &offer{Whole: told.Actions.Upload.Href}
	if told.Actions.Verify != nil {
		o.Verify = told.Actions.Verify.Href
	}
	if _, ok := told.Actions.Upload.Header["chunk_size"]; ok {
		o.Whole, o.Complete = "", o.Whole
		o.Size, o.Parts = partsOf(told.Actions.Upload.Header)
	}
	if !u.sound(o) {
		return nil, u.confused(at)
	}
	return o, nil
}

// partsOf is the size of a part and the addresses of the parts, which come as headers with numbers for names.
func partsOf(header map[string]any) (size int64, addresses []string) {
	switch n := header["chunk_size"].(type) {
	case float64:
		size = int64(n)
	case string:
		size, _ = strconv.ParseInt(n, 10, 64) // 0 is refused
	}
	numbered := map[int]string{}
	for key, value := range header {
		if n, err := strconv.Atoi(key); err == nil {
			numbered[n], _ = value.(string) // "" is refused
		}
	}
	for _, n := range slices.Sorted(maps.Keys(numbered)) {
		addresses = append(addresses, numbered[n])
	}
	return size, addresses
}

// sound tells whether an offer can be taken: it has as many parts as the file, and no address is less safe than the hub's.
func (u *large) sound(o *offer) bool {
	home, err := u.c.endpoint()
	if err != nil {
		return false
	}
	safe := func(address string) bool {
		at, err := url.Parse(address)
		return err == nil && at.Host != "" && at.User == nil && (at.Scheme == "https" || at.Scheme == home.Scheme)
	}
	switch {
	case o.Verify != "" && !safe(o.Verify):
		return false
	case o.Whole != "":
		return safe(o.Whole)
	}
	return o.Size > 0 && len(o.Parts) == count(u.size, o.Size) && safe(o.Complete) && !slices.ContainsFunc(o.Parts, func(p string) bool { return !safe(p) })
}

// sendWhole sends the content in one request.
func (u *large) sendWhole(ctx context.Context, o *offer) error {
	_, err := u.piece(ctx, o.Whole, 0, u.size)
	return err
}

// piece sends bytes of the file to an address of the storage until it takes them, and returns their tag.
func (u *large) piece(ctx context.Context, address string, from, size int64) (tag string, err error) {
	failed := false
	err = u.c.persist(ctx, func() (_ bool, err error) {
		tag, err = u.put(ctx, address, from, size, failed)
		failed = err != nil
		return false, err
	})
	return tag, err
}

// verify tells the hub that the content is there, and hears whether it is what it should be.
func (u *large) verify(ctx context.Context, o *offer) error {
	if o.Verify == "" {
		return nil
	}
	at, err := url.Parse(o.Verify)
	if err != nil {
		return err
	}
	return u.c.settle(ctx, at, jsonType, map[string]any{"oid": u.sha256, "size": u.size}, func(resp *http.Response) error {
		switch err := u.c.passing(resp); {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
			return u.refusal(resp)
		}
		return errors.New("the content arrived altered, says the hub; something between here and the hub alters it, run again on another network")
	})
}

// put is one try of piece. The address is a key itself, so the token does not go along. With ask, the storage is asked whether
// it takes the bytes before they go: one that refuses early may break the connection before its answer is read.
func (u *large) put(ctx context.Context, address string, from, size int64, ask bool) (tag string, err error) {
	at, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	body := &sending{section: section{SectionReader: io.NewSectionReader(u.file, from, size), add: u.count}, closed: make(chan struct{})}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, address, body)
	if err != nil {
		return "", err
	}
	req.ContentLength = size
	req.Header.Set("User-Agent", "quartet")
	if ask {
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := u.c.http.Do(req)
	if err != nil {
		err = u.c.broken(ctx, at, err)
	} else {
		resp.Body.Close()
		tag, err = resp.Header.Get("ETag"), u.taken(resp)
	}
	if err != nil {
		<-body.closed // nothing is read any more
		body.undo()
	}
	return tag, err
}

// taken words the storage's answer, nil where it took what it was sent.
func (u *large) taken(resp *http.Response) error {
	if err := u.c.passing(resp); err != nil {
		return err
	}
	host := resp.Request.URL.Host
	switch code := resp.StatusCode; code {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
		return nil
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return errStale
	default:
		return fmt.Errorf("%s answered %d, which is no answer of the hub's storage; check the proxy", host, code)
	}
}

// sending is bytes of a file on their way. They tell how many have gone, and when no more are read.
type sending struct {
	section
	once   sync.Once
	closed chan struct{}
}

// Close tells that nothing is going to be read any more.
func (s *sending) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
