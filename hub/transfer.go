package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// transfer is the bringing of one file's content.
type transfer struct {
	c        *Client
	at       remote
	count    func(bytes int64) // told what has come, less what was given up
	relocate func(context.Context) (remote, error)
	refusal  func(*http.Response) error
	parts    *parts
	suspect  bool // bytes of different times lie together, so that a wrong digest is no wonder

	locating sync.Mutex // held while the content's place is asked for anew

	mu      sync.Mutex // for all below and parts.done, of which each element is changed by one worker alone
	grown   *sync.Cond // parts.done
	ended   bool       // no more bytes are going to come
	next    int        // the first part that nobody has taken
	url     *url.URL
	asked   int    // how often url was asked for
	storage string // the tag that url's server gives the content
	fickle  bool   // the storage's tags change though the content does not
}

// errWhole is a server's answer of the whole file where a part was asked for.
var errWhole = errors.New("the server sends whole files only")

// errSum is content that is not what the hub says it is.
var errSum = errors.New("the digest is wrong")

// run brings the content and makes it a blob. It gives up with errChanged where the file is not the same any more.
func (t *transfer) run(ctx context.Context, blob string) error {
	size, sums := t.c.part, 0
	for {
		err := t.bring(ctx, blob, size)
		switch {
		case errors.Is(err, errWhole):
			size = max(t.at.size, 1)
		case errors.Is(err, errSum):
			if sums++; !t.suspect || sums == 2 {
				return errors.Join(fmt.Errorf("%w; something between here and the hub alters files, run again on another network", err), dropParts(blob))
			}
		case errors.Is(err, errChanged):
			return errors.Join(err, dropParts(blob))
		default:
			return err
		}
		if err := dropParts(blob); err != nil {
			return err
		}
	}
}

// bring is one try of run, in parts of the given size unless an earlier run began with others.
func (t *transfer) bring(ctx context.Context, blob string, size int64) (err error) {
	if t.parts, err = openParts(blob, t.at.size, size); err != nil {
		return err
	}
	defer t.parts.close()
	var there int64
	for _, n := range t.parts.done {
		there += n
	}
	t.suspect = t.parts.resumed
	t.grown, t.ended, t.next, t.url, t.storage = sync.NewCond(&t.mu), false, 0, t.at.url, ""
	t.count(there)

	sum := make(chan string, 1)
	go func() { sum <- t.digest() }()
	err = t.fetch(ctx)
	t.mu.Lock()
	t.ended = true
	t.grown.Broadcast()
	t.mu.Unlock()
	got := <-sum
	switch {
	case err != nil:
	case got == "":
		err = fmt.Errorf("read %s: it became shorter; run again", t.parts.content.Name())
	case got != t.at.digest:
		err = fmt.Errorf("%w, %s rather than the hub's %s", errSum, got, t.at.digest)
	default:
		return t.parts.finish(blob)
	}
	if errors.Is(err, errWhole) || errors.Is(err, errSum) || errors.Is(err, errChanged) {
		for _, n := range t.parts.done {
			t.count(-n)
		}
	}
	return err
}

// partsEach is how many parts a worker has to bring at least. When a process is killed, each connection loses some megabytes
// that lie in its buffers, so small files are not worth many.
const partsEach = 4

// fetch lets the workers bring all parts. The first failure ends them all.
func (t *transfer) fetch(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	for range min(t.c.workers, (len(t.parts.done)+partsEach-1)/partsEach) {
		workers.Go(func() {
			buffer := make([]byte, min(256<<10, t.parts.part))
			for i := t.take(); i >= 0 && ctx.Err() == nil; i = t.take() {
				err := t.c.persist(ctx, func() (bool, error) { return t.get(ctx, i, buffer) })
				if err != nil {
					stop(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// take is the next part that is not whole, -1 for none.
func (t *transfer) take() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ; t.next < len(t.parts.done); t.next++ {
		if i := t.next; t.parts.done[i] < t.parts.length(i) {
			t.next++
			return i
		}
	}
	return -1
}

// get asks for what is missing of a part, once.
func (t *transfer) get(ctx context.Context, i int, buffer []byte) (gained bool, err error) {
	t.mu.Lock()
	at, asked := t.url, t.asked
	t.mu.Unlock()
	from, to := int64(i)*t.parts.part+t.parts.done[i], int64(i)*t.parts.part+t.parts.length(i)

	resp, err := t.c.send(ctx, request{method: http.MethodGet, to: at, header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, to-1)}}})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if want := fmt.Sprintf("bytes %d-%d/%d", from, to-1, t.at.size); resp.Header.Get("Content-Range") != want {
			return false, t.again(ctx, asked, errChanged)
		}
	case http.StatusOK:
		switch {
		case len(t.parts.done) > 1:
			return false, errWhole
		case resp.ContentLength >= 0 && resp.ContentLength != t.at.size:
			return false, t.again(ctx, asked, errChanged)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return false, t.again(ctx, asked, errChanged)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusBadRequest:
		if t.home(resp) {
			return false, t.refusal(resp)
		}
		return false, t.again(ctx, asked, fmt.Errorf("%s answered %d", resp.Request.URL.Host, resp.StatusCode))
	default:
		return false, t.refusal(resp)
	}
	if resp.Header.Get("Content-Encoding") != "" {
		return false, fmt.Errorf("%s sends it compressed, which was not asked for; check the proxy", at.Host)
	}
	if err := t.same(ctx, asked, resp); err != nil {
		return false, err
	}
	if resp.StatusCode == http.StatusOK {
		if err := t.restart(i); err != nil {
			return false, err
		}
	}
	for {
		left := t.parts.length(i) - t.parts.done[i]
		if left == 0 {
			return gained, nil
		}
		n, err := io.ReadFull(resp.Body, buffer[:min(int64(len(buffer)), left)])
		if n > 0 {
			gained = true
			if err := t.write(i, buffer[:n]); err != nil {
				return gained, err
			}
		}
		if err != nil {
			return gained, t.c.broken(ctx, at, err)
		}
	}
}

// home reports whether an answer is of the hub itself.
func (t *transfer) home(resp *http.Response) bool {
	endpoint, err := t.c.endpoint()
	return err == nil && sameHost(resp.Request.URL, endpoint)
}

// same holds the tag that comes with a part against the file's, or where a storage has tags of its own, against the one
// that it gave before. Where they differ the hub is asked whether the file is still the same.
func (t *transfer) same(ctx context.Context, asked int, resp *http.Response) error {
	tag := strings.Trim(strings.TrimPrefix(resp.Header.Get("ETag"), "W/"), `"`)
	t.mu.Lock()
	was := t.storage
	if t.home(resp) {
		was = t.at.etag
	} else if asked == t.asked && was == "" {
		t.storage = tag
	}
	known := t.fickle || tag == "" || was == "" || tag == was
	t.mu.Unlock()
	if known {
		return nil
	}
	err := t.again(ctx, asked, errors.New("the file's tag changed"))
	t.mu.Lock()
	t.fickle = true
	t.mu.Unlock()
	return err
}

// again asks the hub anew where the content lies, unless that was done since. The part is then tried again because of why.
func (t *transfer) again(ctx context.Context, asked int, why error) error {
	t.locating.Lock()
	defer t.locating.Unlock()
	t.mu.Lock()
	done := t.asked != asked
	t.mu.Unlock()
	if !done {
		at, err := t.relocate(ctx)
		if err != nil {
			return err
		}
		if at.etag != t.at.etag || at.size != t.at.size {
			return errChanged
		}
		t.mu.Lock()
		t.url, t.asked, t.storage, t.suspect = at.url, t.asked+1, "", true
		t.mu.Unlock()
	}
	if errors.Is(why, errChanged) { // it has not, so the server is confused
		why = errors.New("the server sent another part of the file than it was asked for")
	}
	return temporary{error: why, atOnce: true}
}

// write puts data where part i has come to.
func (t *transfer) write(i int, data []byte) error {
	if err := t.parts.write(i, data); err != nil {
		return err
	}
	t.mu.Lock()
	t.parts.done[i] += int64(len(data))
	t.grown.Broadcast()
	t.mu.Unlock()
	t.count(int64(len(data)))
	return nil
}

// restart gives up what there is of a part, because the server starts from its beginning.
func (t *transfer) restart(i int) error {
	was := t.parts.done[i]
	if was == 0 {
		return nil
	}
	if err := t.parts.record(i, 0); err != nil {
		return err
	}
	t.mu.Lock()
	t.parts.done[i], t.suspect = 0, true
	t.mu.Unlock()
	t.count(-was)
	return nil
}

// digest is the digest of the content, computed while it comes; "" where not all comes.
func (t *transfer) digest() string {
	var h hash.Hash
	if len(t.at.digest) == 2*sha256.Size {
		h = sha256.New()
	} else { // of a file that git holds itself
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", t.at.size)
	}
	buffer := make([]byte, min(1<<20, max(t.at.size, 1)))
	for at := int64(0); at < t.at.size; {
		n := min(t.ready(at)-at, int64(len(buffer)))
		if n <= 0 {
			return ""
		}
		if _, err := t.parts.content.ReadAt(buffer[:n], at); err != nil {
			return ""
		}
		h.Write(buffer[:n])
		at += n
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ready waits for bytes from an offset on and returns where those that are there end: at the offset where no more come.
func (t *transfer) ready(from int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := int(from / t.parts.part)
	for {
		end := int64(i)*t.parts.part + t.parts.done[i]
		if end > from || t.ended {
			return end
		}
		t.grown.Wait()
	}
}
