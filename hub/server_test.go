package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	commitA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	secret  = "hf_verysecrettoken"
	signed  = "X-Signature=verysecretsignature"
)

// server speaks the hub's protocol, with large files on a storage of another address, as the hub does. A fault is asked
// before each answer and may give another one in its place.
type server struct {
	t            *testing.T
	hub, storage *httptest.Server

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request) (answered bool)
	files    map[string][]byte // on the hub itself up to 10 kB, else on the storage
	claim    func(entry map[string]any)
	pageSize int
	expires  int // how many answers a link to the storage is good for, 0 for any number
	budget   int // how many bytes of content come before every connection breaks, -1 for all
	log      []string
	sent     int // bytes of content
	links    map[string]int
	uploads
}

func newServer(t *testing.T, files map[string][]byte) *server {
	s := &server{t: t, files: files, pageSize: 1000, budget: -1, links: map[string]int{}, uploads: newUploads()}
	s.hub = httptest.NewServer(http.HandlerFunc(s.answerHub))
	s.storage = httptest.NewServer(http.HandlerFunc(s.answerStorage))
	for _, h := range []*httptest.Server{s.hub, s.storage} {
		h.Config.ErrorLog = nil
		t.Cleanup(h.Close)
	}
	return s
}

// client is one for the server, with a cache of its own unless one is given, and small parts. It never waits; waited is told
// how long it would have.
func (s *server) client(cache string, waited func(time.Duration)) *Client {
	if cache == "" {
		cache = filepath.Join(s.t.TempDir(), "hub")
	}
	c := New(Settings{Endpoint: s.hub.URL, Cache: cache})
	c.part, c.workers = 32<<10, 4
	c.wait = func(ctx context.Context, d time.Duration) error {
		if waited != nil {
			waited(d)
		}
		return ctx.Err()
	}
	c.now = func() time.Time { return time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC) }
	return c
}

func isLarge(data []byte) bool { return len(data) > 10_000 }

var digests256 sync.Map // of large files, by where they lie and their length: nobody changes them

// digestOf is a file's digest as the hub tells it.
func digestOf(data []byte) string {
	if isLarge(data) {
		type place struct {
			first  *byte
			length int
		}
		at := place{&data[0], len(data)}
		if sum, ok := digests256.Load(at); ok {
			return sum.(string)
		}
		sum := sha256.Sum256(data)
		digests256.Store(at, hex.EncodeToString(sum[:]))
		return hex.EncodeToString(sum[:])
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

func (s *server) note(where string, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf("%s %s %s auth=%q range=%q", where, r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Range")))
}

// inject sets the fault, nil for none.
func (s *server) inject(fault func(w http.ResponseWriter, r *http.Request) (answered bool)) {
	s.set(func() { s.fault = fault })
}

func (s *server) fails(w http.ResponseWriter, r *http.Request) (answered bool) {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	return fault != nil && fault(w, r)
}

func (s *server) answerHub(w http.ResponseWriter, r *http.Request) {
	s.note("hub", r)
	if s.fails(w, r) {
		return
	}
	if r.Method == http.MethodPost {
		s.answerUpload(w, r)
		return
	}
	if _, ok := strings.CutPrefix(r.URL.Path, "/api/"); ok {
		s.answerAPI(w, r)
		return
	}
	_, path, _ := strings.Cut(r.URL.Path, "/resolve/")
	_, name, _ := strings.Cut(path, "/")
	s.mu.Lock()
	data, ok := s.files[name]
	head := s.head
	s.mu.Unlock()
	if !ok {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("X-Repo-Commit", head)
	if !isLarge(data) {
		w.Header().Set("ETag", `"`+digestOf(data)+`"`)
		s.serve(w, r, data)
		return
	}
	s.mu.Lock()
	link := strconv.Itoa(len(s.links))
	s.links[link] = s.expires
	s.mu.Unlock()
	w.Header().Set("X-Linked-Etag", `"`+digestOf(data)+`"`)
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
	w.Header().Set("Location", s.storage.URL+"/store/"+name+"?"+signed+"&link="+link)
	w.WriteHeader(http.StatusFound)
}

func (s *server) answerAPI(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing {
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if strings.Contains(r.URL.Path, "/revision/") {
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/models/"), "/revision/")
		fmt.Fprintf(w, `{"id": %q, "sha": %q, "private": %t, "siblings": []}`, name, s.head, s.private)
		return
	}
	var entries []map[string]any
	for name, data := range s.files {
		e := map[string]any{"type": "file", "path": name, "size": len(data), "oid": digestOf(data)}
		if isLarge(data) {
			e["oid"] = strings.Repeat("0", 40) // of the pointer
			e["lfs"] = map[string]any{"oid": digestOf(data), "size": len(data), "pointerSize": 130}
		}
		if s.claim != nil {
			s.claim(e)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b map[string]any) int { return strings.Compare(a["path"].(string), b["path"].(string)) })
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := min(from+s.pageSize, len(entries))
	if to < len(entries) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, s.hub.URL, r.URL.Path, to))
	}
	json.NewEncoder(w).Encode(entries[from:to])
}

func (s *server) answerStorage(w http.ResponseWriter, r *http.Request) {
	s.note("storage", r)
	if s.fails(w, r) {
		return
	}
	if r.Method == http.MethodPut {
		s.take(w, r)
		return
	}
	link := r.URL.Query().Get("link")
	s.mu.Lock()
	left, known := s.links[link]
	s.links[link]--
	data := s.files[strings.TrimPrefix(r.URL.Path, "/store/")]
	expired := !known || s.expires > 0 && left <= 0
	s.mu.Unlock()
	if expired {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.Header().Set("ETag", `"storage-`+digestOf(data)[:8]+`"`)
	s.serve(w, r, data)
}

// serve sends content, by ranges, and counts and cuts it.
func (s *server) serve(w http.ResponseWriter, r *http.Request, data []byte) {
	http.ServeContent(&counting{w, s}, r, "", time.Time{}, bytes.NewReader(data))
}

type counting struct {
	http.ResponseWriter
	s *server
}

func (c *counting) Write(p []byte) (int, error) {
	const step = 4 << 10 // a cut lies anywhere, but the counter is not far ahead of what is read
	for done := 0; done < len(p); {
		n := min(step, len(p)-done)
		c.s.mu.Lock()
		cut := c.s.budget >= 0 && n >= c.s.budget
		if cut {
			n = c.s.budget
		}
		if c.s.budget >= 0 {
			c.s.budget -= n
		}
		c.s.sent += n
		c.s.mu.Unlock()
		if _, err := c.ResponseWriter.Write(p[done : done+n]); err != nil {
			return done, err
		}
		if cut {
			c.ResponseWriter.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		done += n
	}
	return len(p), nil
}

// set changes the server between requests.
func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// content is the bytes of content sent since the last call.
func (s *server) content() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.sent
	s.sent = 0
	return n
}

// requests are those whose description holds all words.
func (s *server) requests(words ...string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.log {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			found = append(found, line)
		}
	}
	return found
}

func random(seed uint64, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(data)
	return data
}

// tinyModel is the files of a model with one large file.
func tinyModel() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte(`{"model_type": "phi"}`), "tokenizer.json": []byte(`{}`), "model.safetensors": random(1, 300_000),
	}
}

var tiny = Repo{Model, "org/tiny", ""}

func noProgress(int64, int64) {}

func download(t *testing.T, c *Client, r Repo) Snapshot {
	t.Helper()
	s, err := c.Download(context.Background(), r, noProgress)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// holds checks the files of a snapshot, and that nothing half done lies in the cache.
func holds(t *testing.T, c *Client, s Snapshot, want map[string][]byte) {
	t.Helper()
	for name, data := range want {
		got, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s is wrong: %d bytes of %d, %v", name, len(got), len(data), err)
		}
	}
	err := filepath.WalkDir(c.Cache, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(path, "incomplete") {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestMain lets the test binary stand in for another process: with a helper's environment it downloads, or uploads, and exits.
func TestMain(m *testing.M) {
	if endpoint := os.Getenv("QUARTET_TEST_ENDPOINT"); endpoint != "" {
		c := New(Settings{Endpoint: endpoint, Cache: os.Getenv("QUARTET_TEST_CACHE"), Token: os.Getenv("QUARTET_TEST_TOKEN")})
		var err error
		if folder := os.Getenv("QUARTET_TEST_FOLDER"); folder != "" {
			_, err = upload(context.Background(), c, folder, os.Getenv("QUARTET_TEST_STATE"))
		} else {
			c.part, c.workers = 32<<10, 4
			_, err = c.Download(context.Background(), tiny, noProgress)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if at := os.Getenv("QUARTET_TEST_DRIVE"); at != "" {
		dir := os.Getenv("QUARTET_TEST_STATE")
		d := newDrive("box", dir, at, login{id: "me", secret: "x", address: at, file: filepath.Join(dir, "drive.json"), show: func(_, _ string) {}})
		d.calls.wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
		files, err := LocalFiles(os.Getenv("QUARTET_TEST_FOLDER"))
		if err == nil {
			err = Upload(context.Background(), d, files, func(string, int64, int64) {})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dest := os.Getenv("QUARTET_TEST_DEST"); dest != "" {
		ctx := context.Background()
		files, err := LocalFiles(os.Getenv("QUARTET_TEST_FOLDER"))
		if err == nil {
			var store Store
			if store, err = Open(ctx, dest, Options{State: os.Getenv("QUARTET_TEST_STATE")}); err == nil {
				err = Upload(ctx, store, files, func(_ string, done, total int64) {
					if done == total {
						fmt.Println(time.Now().UnixNano())
					}
				})
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir, err := os.MkdirTemp("/dev/shm", "quartet-hub-"); err == nil {
		os.Setenv("TMPDIR", dir)
		defer os.RemoveAll(dir)
	}
	m.Run()
}
