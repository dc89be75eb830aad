package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Snapshot is the files of a repository on this machine.
type Snapshot struct {
	Commit string
	Dir    string // holds the files as links into the cache
	Files  []File // without digests where the cache was taken as it is
	Note   string // why the hub was not asked, "" where it was
}

// Paths are the places of the files.
func (s Snapshot) Paths() []string {
	var all []string
	for _, f := range s.Files {
		all = append(all, filepath.Join(s.Dir, filepath.FromSlash(f.Name)))
	}
	return all
}

// picked is the snapshot with some of its files.
func (s Snapshot) picked(r Repo, pick func([]File) ([]File, error)) (Snapshot, error) {
	files, err := pick(s.Files)
	if err != nil {
		return Snapshot{}, fmt.Errorf("%s %s: %w", r.Kind, r.Name, err)
	}
	s.Files = files
	return s, nil
}

// Useful asks the hub which files Download would bring: of a model its weights as safetensors, its configuration, tokenizer
// and licence, of a dataset its .jsonl files or its .parquet ones, whichever are more. Offline it is the files in the cache.
func (c *Client) Useful(ctx context.Context, r Repo) (Listing, error) {
	r, err := r.check()
	if err != nil {
		return Listing{}, err
	}
	if c.Offline {
		s, err := c.cached(r)
		if err != nil {
			return Listing{}, c.offline(r, err)
		}
		return Listing{s.Commit, s.Files}, nil
	}
	l, err := c.List(ctx, r)
	if err != nil {
		return Listing{}, err
	}
	if l.Files, err = choose(r, l.Files); err != nil {
		return Listing{}, fmt.Errorf("list %s: %w", r.Name, err)
	}
	return l, nil
}

// Missing is how many bytes a run would bring of a model, or of a dataset's training rows, less the files that the cache has whole.
func (c *Client) Missing(ctx context.Context, r Repo) (bytes int64, err error) {
	l, err := c.Useful(ctx, r)
	if err == nil && r.Kind == Dataset {
		l.Files, err = trainingFiles(r.Name, l.Files)
	}
	if err != nil {
		return 0, err
	}
	for _, f := range l.Files {
		if !c.Offline && !whole(c.blob(r, f.Digest), f.Size) {
			bytes += f.Size
		}
	}
	return bytes, nil
}

func (c *Client) offline(r Repo, err error) error {
	return fmt.Errorf("download %s: HF_HUB_OFFLINE is set, and %w; unset it and run %s", r.Name, err, r.again())
}

// Download brings the useful files of a repository into the cache, those that are not there yet. progress is told the bytes
// that are there and their total; it is not called by two goroutines at once. When ctx is cancelled, or the process killed,
// the next download goes on from there. If the hub cannot be reached, a cache with all files will do.
func (c *Client) Download(ctx context.Context, r Repo, progress func(done, total int64)) (Snapshot, error) {
	return c.download(ctx, r, func(files []File) ([]File, error) { return files, nil }, progress)
}

// download is Download of those useful files that pick picks.
func (c *Client) download(ctx context.Context, r Repo, pick func([]File) ([]File, error), progress func(done, total int64)) (Snapshot, error) {
	r, err := r.check()
	if err != nil {
		return Snapshot{}, err
	}
	if c.Offline {
		s, err := c.cached(r)
		if err != nil {
			return Snapshot{}, c.offline(r, err)
		}
		s.Note = "HF_HUB_OFFLINE is set, so the cache is taken as it is"
		return s.picked(r, pick)
	}
	l, err := c.Useful(ctx, r)
	var unreachable temporary
	if errors.As(err, &unreachable) && ctx.Err() == nil {
		s, lacks := c.cached(r)
		if lacks != nil {
			return Snapshot{}, err
		}
		s.Note = fmt.Sprintf("the hub cannot be asked (%v), so the cache is taken as it is", unreachable)
		return s.picked(r, pick)
	}
	if err != nil {
		return Snapshot{}, err
	}
	s, err := Snapshot{Commit: l.Commit, Dir: c.snapshot(r, l.Commit), Files: l.Files}.picked(r, pick)
	if err != nil {
		return Snapshot{}, err
	}
	if err := c.fetch(ctx, r, s, progress); err != nil {
		return Snapshot{}, fmt.Errorf("download %s: %w", r.Name, err)
	}
	return s, nil
}

// fetch brings the files of a snapshot.
func (c *Client) fetch(ctx context.Context, r Repo, s Snapshot, progress func(done, total int64)) error {
	blobs := c.place(r, "blobs")
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		return fmt.Errorf("make folder %s: %w", blobs, inCache(err))
	}
	var total, need int64
	for _, f := range s.Files {
		total += f.Size
		if blob := c.blob(r, f.Digest); !whole(blob, f.Size) {
			need += max(0, f.Size-allocated(blob+contentSuffix))
		}
	}
	if err := c.room(blobs, need); err != nil {
		return err
	}
	count := &counter{total: total, tell: progress}
	count.add(0)
	for _, f := range s.Files {
		if err := c.file(ctx, r, s.Commit, f, count); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return c.refer(r, s.Commit)
}

// allocated is the bytes that a file takes on the disk, 0 where there is none.
func allocated(path string) int64 {
	var s syscall.Stat_t
	if syscall.Stat(path, &s) != nil {
		return 0
	}
	return s.Blocks * 512
}

// counter adds up what is there.
type counter struct {
	mu          sync.Mutex
	done, total int64
	tell        func(done, total int64)
}

func (c *counter) add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	c.tell(c.done, c.total)
}

// resize tells that a file is larger by n bytes than was thought.
func (c *counter) resize(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += n
}

// errChanged is the end of a transfer whose file is not the one any more that it began with.
var errChanged = errors.New("the file changed on the hub while it was fetched")

// file brings one file into the cache and links it into its snapshot.
func (c *Client) file(ctx context.Context, r Repo, commit string, f File, count *counter) error {
	if whole(c.blob(r, f.Digest), f.Size) {
		count.add(f.Size)
		return c.link(r, commit, f.Name, f.Digest)
	}
	size := f.Size
	for starts := 1; ; starts++ {
		var at remote
		err := c.persist(ctx, func() (_ bool, err error) {
			at, err = c.locate(ctx, r, commit, f)
			return false, err
		})
		if err != nil {
			return err
		}
		count.resize(at.size - size)
		size = at.size
		err = c.content(ctx, r, commit, f, at, count)
		const most = 3
		if !errors.Is(err, errChanged) {
			return err
		}
		if starts == most {
			return fmt.Errorf("%w, %d times; run again, with a commit as the revision", err, most)
		}
	}
}

// remote is a file as the hub describes it.
type remote struct {
	etag   string   // its name among the blobs
	digest string   // as File has it
	size   int64    // bytes
	url    *url.URL // of its content, which may be of another host and soon expire
}

// locate asks the hub where a file's content lies.
func (c *Client) locate(ctx context.Context, r Repo, commit string, f File) (remote, error) {
	at, err := c.endpoint()
	if err != nil {
		return remote{}, err
	}
	at = at.JoinPath(r.page(), "resolve", commit)
	for part := range strings.SplitSeq(f.Name, "/") {
		at = at.JoinPath(url.PathEscape(part))
	}
	resp, err := c.send(ctx, request{method: http.MethodHead, to: at, stay: true})
	if err != nil {
		return remote{}, err
	}
	resp.Body.Close()
	found := remote{digest: f.Digest, size: f.Size, url: resp.Request.URL}
	size, tag := resp.ContentLength, resp.Header.Get("ETag")
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		if found.url, err = resp.Location(); err != nil {
			return remote{}, errors.New("the hub sent a redirect to nowhere")
		}
		size = -1
	default:
		return remote{}, c.refusal(r, f.Name, resp)
	}
	if linked := resp.Header.Get("X-Linked-Etag"); linked != "" {
		tag = linked
	}
	if linked := resp.Header.Get("X-Linked-Size"); linked != "" {
		if size, err = strconv.ParseInt(linked, 10, 64); err != nil || size < 0 || size > largestFile {
			return remote{}, errors.New("the hub tells a size that cannot be; check HF_ENDPOINT and the proxy")
		}
	}
	if size >= 0 {
		found.size = size
	}
	if found.etag, err = entityTag(tag); err != nil {
		return remote{}, err
	}
	switch {
	case digestName.MatchString(found.etag):
		found.digest = found.etag
	case found.etag == "":
		found.etag = f.Digest
	}
	return found, nil
}

// content brings a blob into the cache, unless it is there, and links it.
func (c *Client) content(ctx context.Context, r Repo, commit string, f File, at remote, count *counter) error {
	release, err := c.lock(ctx, r, at.etag)
	if err != nil {
		return err
	}
	defer release()
	blob := c.blob(r, at.etag)
	if whole(blob, at.size) { // another process was faster
		count.add(at.size)
		return c.link(r, commit, f.Name, at.etag)
	}
	relocate := func(ctx context.Context) (remote, error) { return c.locate(ctx, r, commit, f) }
	refusal := func(resp *http.Response) error { return c.refusal(r, f.Name, resp) }
	t := &transfer{c: c, at: at, count: count.add, relocate: relocate, refusal: refusal}
	if err := t.run(ctx, blob); err != nil {
		return err
	}
	return c.link(r, commit, f.Name, at.etag)
}
