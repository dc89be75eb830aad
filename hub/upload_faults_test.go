package hub

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// send uploads a folder with a client that starts anew and checks that all of it is there and told.
func (s *server) send(t *testing.T, c *Client, files map[string][]byte, dir, state string) {
	t.Helper()
	if told, err := upload(context.Background(), c, dir, state); err != nil || told != size(files) {
		t.Fatalf("told %d of %d bytes: %v", told, size(files), err)
	}
	s.has(t, files)
	if left, _ := os.ReadDir(state); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestUploadAgain uploads what is there, then some changed files and one whose content is there under another name.
func TestUploadAgain(t *testing.T) {
	files := newModel()
	s := newRepository(t)
	dir := folder(t, files)
	s.send(t, s.uploader(nil), files, dir, t.TempDir())
	s.log, s.received = nil, 0
	s.send(t, s.uploader(nil), files, dir, t.TempDir())
	if s.received != 0 || len(s.commits) != 1 || len(s.requests("POST")) != 1 {
		t.Errorf("again: %d bytes, %d commits, asked %v", s.received, len(s.commits), s.requests("POST"))
	}
	files["config.json"], files["model.safetensors"], files["other.safetensors"] = []byte(`{"model_type":"phi"}`), random(43, 50_000), files["model.safetensors"]
	dir = folder(t, files)
	s.send(t, s.uploader(nil), files, dir, t.TempDir())
	if s.received != 50_000 || len(s.commits) != 2 || len(s.commits[1]) != 3 {
		t.Errorf("changed: %d bytes, %d commits", s.received, len(s.commits))
	}
	if err := os.Remove(filepath.Join(dir, "README.md")); err != nil {
		t.Fatal(err)
	}
	if _, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir()); err != nil || len(s.commits) != 2 {
		t.Errorf("%v, %d commits", err, len(s.commits))
	}
	s.has(t, files) // what is not in the folder stays
}

// interrupt uploads a folder until that many bytes of content have come.
func (s *server) interrupt(t *testing.T, c *Client, dir, state string, bytes int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.set(func() { s.cutAt, s.cut = s.received+bytes, cancel })
	if _, err := upload(ctx, c, dir, state); err == nil {
		t.Fatal("it was not interrupted")
	}
}

// TestUploadResume goes on with an upload in parts: the hub names the same upload again, or begins another one each time.
func TestUploadResume(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		files := map[string][]byte{"model.safetensors": random(44, 1_000_000)}
		s := newRepository(t)
		s.forgets, s.chunk = forgets, 10_000
		dir, state := folder(t, files), t.TempDir()
		s.interrupt(t, s.uploader(nil), dir, state, 400_000)
		s.interrupt(t, s.uploader(nil), dir, state, 300_000)
		left, err := os.ReadDir(state)
		if err != nil || len(left) != 1 {
			t.Fatalf("kept %v: %v", left, err)
		}
		if info, err := left[0].Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("the links are kept in %v: %v", info, err)
		}
		// A killed program may leave half a line.
		f, err := os.OpenFile(filepath.Join(state, left[0].Name()), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"part":1,"eta`); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		s.send(t, s.uploader(nil), files, dir, state)
		if most := 1_000_000 + 2*8*10_000 + 2*16<<10; s.received > most { // a kill loses what eight workers have on the way
			t.Errorf("%d bytes came, the new upload of each batch %v", s.received, forgets)
		}
	}
}

// uploading is a process that uploads a folder.
func uploading(s *server, dir, state string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "QUARTET_TEST_ENDPOINT="+s.hub.URL, "QUARTET_TEST_TOKEN="+secret, "QUARTET_TEST_FOLDER="+dir, "QUARTET_TEST_STATE="+state)
	return cmd
}

// TestUploadKilled kills a process in the middle of the parts that it sends.
func TestUploadKilled(t *testing.T) {
	files := map[string][]byte{"model.safetensors": random(52, 4<<20)}
	s := newRepository(t)
	s.chunk = 64 << 10
	dir, state := folder(t, files), t.TempDir()
	cmd := uploading(s, dir, state)
	s.cutAt, s.cut = 2<<20, func() { cmd.Process.Kill() }
	if out, err := cmd.CombinedOutput(); err == nil || len(out) > 0 {
		t.Fatalf("it was not killed: %v %s", err, out)
	}
	if out, err := uploading(s, dir, state).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.has(t, files)
	if most := 4 << 20 * 11 / 10; s.received > most {
		t.Errorf("%d bytes came, more than %d", s.received, most)
	}
}

// TestUploadState resumes with a state that is no good.
func TestUploadState(t *testing.T) {
	files := map[string][]byte{"model.safetensors": random(45, 300_000)}
	for name, damage := range map[string]func(text string) string{
		"empty":        func(string) string { return "" },
		"nonsense":     func(string) string { return "\x00\xff{" },
		"fewer links":  func(text string) string { return strings.Replace(text, `"size":32768`, `"size":65536`, 1) },
		"unsafe links": func(text string) string { return strings.ReplaceAll(text, "http:", "ftp:") },
		"no such parts": func(text string) string {
			return text + `{"part":0,"etag":"x"}` + "\n" + `{"part":99,"etag":"x"}` + "\n"
		},
		"wrong tags": func(text string) string { return text + `{"part":10,"etag":"x"}` + "\n" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newRepository(t)
			dir, state := folder(t, files), t.TempDir()
			s.interrupt(t, s.uploader(nil), dir, state, 150_000)
			kept, err := filepath.Glob(filepath.Join(state, "hf-*"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept %v: %v", kept, err)
			}
			text, err := os.ReadFile(kept[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(kept[0], []byte(damage(string(text))), 0o600); err != nil {
				t.Fatal(err)
			}
			s.send(t, s.uploader(nil), files, dir, state)
		})
	}
}

// TestRepositoryCuts cuts uploads off at random bytes, every other one with the program, and runs them again. QUARTET_CUTS=100
// makes it 100 files of 256 MB.
func TestRepositoryCuts(t *testing.T) {
	cuts, size, chunk := 100, 1_000_000, 16<<10
	if n, err := strconv.Atoi(os.Getenv("QUARTET_CUTS")); err == nil {
		cuts, size, chunk = n, 256<<20, 4<<20
	}
	files := map[string][]byte{"model.safetensors": random(46, size), "config.json": []byte("{}")}
	dir := folder(t, files)
	worst := 0.0
	for i := range cuts {
		s := newRepository(t)
		s.chunk = chunk
		state := t.TempDir()
		at := rand.IntN(size)
		if i%2 == 0 {
			s.interrupt(t, s.uploader(nil), dir, state, at)
		} else {
			s.cutAt, s.cut = at, func() {}
		}
		s.send(t, s.uploader(nil), files, dir, state)
		if share := float64(s.received) / float64(size); share > 1.1 {
			t.Errorf("cut at %d: %.3f of the content was sent", at, share)
		} else {
			worst = max(worst, share)
		}
		s.hub.Close()
		s.storage.Close()
		s.files, s.uploads = nil, uploads{} // the server lives until the test ends
	}
	t.Logf("%d cuts of %d bytes in parts of %d: at most %.3f of the content sent", cuts, size, chunk, worst)
}

// TestUploadWholeCuts cuts off files that the hub takes in one request.
func TestUploadWholeCuts(t *testing.T) {
	files := map[string][]byte{"adapter.safetensors": random(47, 200_000)}
	dir := folder(t, files)
	for range 20 {
		s := newRepository(t)
		s.chunk = 1 << 20
		state := t.TempDir()
		s.interrupt(t, s.uploader(nil), dir, state, rand.IntN(200_000))
		s.cutAt, s.cut = s.received+rand.IntN(200_000), func() {}
		s.send(t, s.uploader(nil), files, dir, state)
	}
}

func TestUploadWaiting(t *testing.T) {
	answer := func(code int, header ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(code)
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		low    time.Duration // the wait; 0 for one of the client's own choice
	}{
		"429 in seconds":    {answer(429, "Retry-After", "7"), 7 * time.Second},
		"429 with a window": {answer(429, "RateLimit", `"api";r=0;t=33`), 33 * time.Second},
		"503 with a date":   {answer(503, "Retry-After", "Tue, 01 Jan 2030 12:00:42 GMT"), 42 * time.Second},
		"408":               {answer(408), 0},
		"500":               {answer(500), 0},
		"a drop":            {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			// Each kind of request fails once: create, revision, tree, preupload, batch, parts, complete, verify, commit.
			files := newModel()
			s := newRepository(t)
			failed := map[string]bool{}
			s.inject(func(w http.ResponseWriter, r *http.Request) (fails bool) {
				kind := r.Method
				for _, word := range []string{"create", "/revision/", "/tree/", "/preupload/", "/batch", "/complete", "/verify", "/commit/"} {
					if strings.Contains(r.URL.Path, word) {
						kind = word
					}
				}
				s.set(func() { fails = !failed[kind]; failed[kind] = true })
				if fails {
					c.answer(w)
				}
				return fails
			})
			var waits []time.Duration
			s.send(t, s.uploader(func(d time.Duration) { s.set(func() { waits = append(waits, d) }) }), files, folder(t, files), t.TempDir())
			if len(failed) != 9 || len(waits) < map[bool]int{false: 9, true: 1}[name == "a drop"] { // net/http mends drops of connections it had open
				t.Errorf("failed %v, waits %v", failed, waits)
			}
			for _, d := range waits {
				if c.low != 0 && d != c.low || c.low == 0 && (d < 500*time.Millisecond || d > 700*time.Millisecond) {
					t.Errorf("waited %s", d)
				}
			}
		})
	}
}

// TestUploadExpiredLinks gives links that take a few contents only.
func TestUploadExpiredLinks(t *testing.T) {
	files := newModel()
	s := newRepository(t)
	s.uses = 3
	s.send(t, s.uploader(func(d time.Duration) { t.Errorf("it waited %s", d) }), files, folder(t, files), t.TempDir())
	if n := len(s.requests("POST", "/batch")); n < 4 || s.received > 400_000 {
		t.Errorf("%d batches, %d bytes for 320000", n, s.received)
	}
	// Where each batch begins another upload the parts are lost with the links. It must end some time.
	s = newRepository(t)
	s.uses, s.forgets = 3, true
	_, err := upload(context.Background(), s.uploader(nil), folder(t, files), t.TempDir())
	want := "upload model.safetensors to hf://org/new: the storage does not take the links that the hub gives, 3 times in a row; check this machine's clock and the proxy, and run again to go on from here"
	if err == nil || err.Error() != want || len(s.requests("POST", "/batch")) > 8 {
		t.Errorf("%v after %d batches", err, len(s.requests("POST", "/batch")))
	}
	// Links that have expired since the upload was killed.
	s = newRepository(t)
	s.forgets = true
	dir, state := folder(t, files), t.TempDir()
	s.interrupt(t, s.uploader(nil), dir, state, 150_000)
	clear(s.tickets)
	s.send(t, s.uploader(nil), files, dir, state)
}

// TestUploadEarlyRefusal breaks the connection as soon as a link has expired, so that the answer is hard to read.
func TestUploadEarlyRefusal(t *testing.T) {
	files := map[string][]byte{"model.safetensors": random(48, 8<<20)}
	s := newRepository(t)
	s.chunk = 16 << 20
	refused := 0
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || refused == 4 {
			return false
		}
		refused++
		w.Header().Set("Connection", "close")
		if r.Header.Get("Expect") == "" {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	s.send(t, s.uploader(nil), files, folder(t, files), t.TempDir())
	if n := len(s.requests("POST", "/batch")); n != 3 || s.received != 8<<20 {
		t.Errorf("%d batches, %d bytes", n, s.received)
	}
}

// TestUploadSilence ends connections on which nothing goes.
func TestUploadSilence(t *testing.T) {
	files := map[string][]byte{"model.safetensors": random(49, 300_000)}
	s := newRepository(t)
	silent := 0
	s.inject(func(_ http.ResponseWriter, r *http.Request) (holds bool) {
		s.set(func() {
			if holds = r.Method == http.MethodPut && silent < 2; holds {
				silent++
			}
		})
		if holds {
			io.Copy(io.Discard, r.Body) // the end of a connection is noticed only then
			<-r.Context().Done()
		}
		return holds
	})
	c := s.uploader(nil)
	c.http.Transport = watch{c.http.Transport.(watch).RoundTripper, 200 * time.Millisecond, 200 * time.Millisecond}
	s.send(t, c, files, folder(t, files), t.TempDir())
}

// TestUploadThinking has a hub that takes its time where there is much to do, and must not be asked for the same again meanwhile.
func TestUploadThinking(t *testing.T) {
	const patience = 300 * time.Millisecond
	files := newModel()
	s := newRepository(t)
	s.chunk = 64 << 10
	s.inject(func(_ http.ResponseWriter, r *http.Request) bool {
		if p := r.URL.Path; p == "/complete" || p == "/verify" || strings.Contains(p, "/commit/") {
			select {
			case <-time.After(2 * patience):
			case <-r.Context().Done():
			}
		}
		return false
	})
	c := s.uploader(nil)
	c.stall = patience
	s.send(t, c, files, folder(t, files), t.TempDir())
	if joined, made := len(s.requests("POST", "/complete")), len(s.requests("POST", "/commit/")); joined != 1 || made != 1 {
		t.Errorf("asked %d times to put the parts together, %d times to commit", joined, made)
	}
}

// TestUploadAltered turns a bit of what comes to the storage.
func TestUploadAltered(t *testing.T) {
	for _, chunk := range []int{32 << 10, 1 << 20} {
		files := newModel()
		s := newRepository(t)
		s.alters, s.chunk = true, chunk
		dir, state := folder(t, files), t.TempDir()
		_, err := upload(context.Background(), s.uploader(nil), dir, state)
		want := "upload adapter.safetensors to hf://org/new: the content arrived altered, says the hub; something between here and the hub alters it, run again on another network"
		if err == nil || err.Error() != want || len(s.commits) > 0 {
			t.Errorf("%v, %d commits", err, len(s.commits))
		}
		s.alters = false
		s.send(t, s.uploader(nil), files, dir, state)
	}
}

func TestUploadTokenStaysAtHome(t *testing.T) {
	files := newModel()
	s := newRepository(t)
	dir := folder(t, files)
	s.send(t, s.uploader(nil), files, dir, t.TempDir())
	if with, all := len(s.requests("hub", `auth="Bearer `+secret)), len(s.requests("hub")); with != all || all == 0 {
		t.Errorf("%d of %d requests to the hub had the token", with, all)
	}
	if with, all := len(s.requests("storage", secret)), len(s.requests("storage")); with != 0 || all == 0 {
		t.Errorf("%d of %d requests to the storage had the token", with, all)
	}
	// A storage of the hub's own address gets none either: a link is a key itself.
	s = newRepository(t)
	s.storage = s.hub
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			s.take(w, r)
		}
		return r.Method == http.MethodPut
	})
	s.send(t, s.uploader(nil), files, dir, t.TempDir())
	if with, all := len(s.requests("PUT", secret)), len(s.requests("PUT")); with != 0 || all == 0 {
		t.Errorf("%d of %d requests with content had the token", with, all)
	}
	// A call that is redirected to another host does not take the token along.
	away := newRepository(t)
	s = newRepository(t)
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, away.hub.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	_, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir())
	if with, all := len(away.requests(secret)), len(away.requests()); err == nil || with != 0 || all == 0 {
		t.Errorf("%d of %d redirected requests had the token: %v", with, all, err)
	}
}

// TestUploadConflicts lets others commit meanwhile.
func TestUploadConflicts(t *testing.T) {
	files := newModel()
	dir := folder(t, files)
	for name, c := range map[string]struct {
		times   int    // commits of others, before each try
		brings  string // the file that they bring, as the folder has it
		commits int
		fails   bool
	}{
		"one commit between":           {1, "", 1, false},
		"a commit of one of the files": {1, "config.json", 1, false},
		"commits without end":          {99, "", 0, true},
	} {
		s := newRepository(t)
		others := 0
		s.between = func() {
			if others++; others > c.times {
				return
			}
			s.head = fmt.Sprintf("%040d", 900+others)
			if c.brings != "" {
				s.files[c.brings] = files[c.brings]
			}
		}
		_, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir())
		want := "commit to hf://org/new: other commits come in between; run again when nobody else changes the repository, nothing large is sent twice"
		if c.fails != (err != nil) || err != nil && err.Error() != want || len(s.commits) != c.commits {
			t.Errorf("%s: %d commits: %v", name, len(s.commits), err)
		}
		if err == nil {
			s.has(t, files)
			if _, again := s.commits[0][c.brings]; again {
				t.Errorf("%s: %s was committed again", name, c.brings)
			}
		}
	}
	// The answer to a commit is lost: it is not made again.
	s := newRepository(t)
	lost := false
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/commit/") && !lost {
			lost = true
			s.answerUpload(w, r)
			panic(http.ErrAbortHandler)
		}
		return false
	})
	s.send(t, s.uploader(nil), files, dir, t.TempDir())
	if !lost || len(s.commits) != 1 {
		t.Errorf("%d commits", len(s.commits))
	}
	// So is the answer to the joining of parts.
	s = newRepository(t)
	lost = false
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/complete" && !lost {
			lost = true
			s.answerUpload(w, r)
			panic(http.ErrAbortHandler)
		}
		return false
	})
	s.send(t, s.uploader(nil), files, dir, t.TempDir())
	if !lost || s.received != 320_000 {
		t.Errorf("%d bytes", s.received)
	}
}

func TestUploadRefusals(t *testing.T) {
	const open, put, commit = "open hf://org/new: ", "upload README.md to hf://org/new: ", "commit to hf://org/new: "
	const token = "make one with write access at HUB/settings/tokens and set HF_TOKEN to it"
	for _, c := range []struct {
		path, message string
		code          int
		want          string
	}{
		{"/create", "", 401, open + "the hub does not take the token; " + token},
		{"/create", "", 403, open + "the token may not write there; " + token},
		{"/create", "", 400, open + "the hub takes no repository of that name; choose another"},
		{"/create", "", 418, open + "HOST answered 418, which is no answer of a hub; check HF_ENDPOINT and the proxy"},
		{"/create", "verysecret", 503, open + "HOST answered 503; 6 tries failed, run again to go on from here"},
		{"/preupload/", "", 403, put + "the token may not write there; " + token},
		{"/preupload/", "", 404, put + "there is no such repository, or the token may not see it; check the name and HF_TOKEN"},
		{"/preupload/", "", 303, put + "HOST answered 303 to what was sent; check HF_ENDPOINT and the proxy"},
		{"/batch", "Private repository storage limit reached, verysecret", 403, "upload adapter.safetensors to hf://org/new: the storage of org is full; free some, or get more at HUB/settings/billing, and run again to go on from here"},
		{"/batch", "", 413, "upload adapter.safetensors to hf://org/new: the file is larger than the hub takes; split it into shards"},
		{"/up", "", 418, "upload adapter.safetensors to hf://org/new: STORE answered 418, which is no answer of the hub's storage; check the proxy"},
		{"/up", "", 503, "upload adapter.safetensors to hf://org/new: STORE answered 503; 6 tries failed, run again to go on from here"},
		{"/commit/", "", 400, commit + "the hub answered 400 to the files; check the lines between --- in README.md, if that is among them"},
		{"/commit/", "", 402, commit + "the storage of org is full; free some, or get more at HUB/settings/billing, and run again to go on from here"},
		{"/commit/", "", 500, commit + "HOST answered 500; 6 tries failed, run again to go on from here"},
	} {
		s := newRepository(t)
		s.inject(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, c.path) {
				return false
			}
			w.Header().Set("X-Error-Message", c.message)
			w.Header().Set("Location", s.hub.URL+"/elsewhere")
			w.WriteHeader(c.code)
			return true
		})
		_, err := upload(context.Background(), s.uploader(nil), folder(t, newModel()), t.TempDir())
		host := func(url string) string { return strings.TrimPrefix(url, "http://") }
		want := strings.NewReplacer("HUB", s.hub.URL, "HOST", host(s.hub.URL), "STORE", host(s.storage.URL)).Replace(c.want)
		if err == nil || err.Error() != want || strings.Contains(err.Error(), "verysecret") {
			t.Errorf("%s %d: %v, not %s", c.path, c.code, err, want)
		}
	}
	s := newRepository(t)
	dir := folder(t, newModel())
	for want, change := range map[string]func(c *Client){
		"uploads need a token; make one with write access at " + s.hub.URL + "/settings/tokens and set HF_TOKEN to it": func(c *Client) { c.Token = "" },
		"HF_HUB_OFFLINE is set; unset it and run again":                                                                func(c *Client) { c.Offline = true },
	} {
		c := s.uploader(nil)
		change(c)
		if _, err := upload(context.Background(), c, dir, t.TempDir()); err == nil || err.Error() != open+want || len(s.requests()) > 0 {
			t.Errorf("%v, not %s", err, want)
		}
	}
	s.ignored = "README.md"
	want := put + "the repository's .gitignore keeps it out; change that at " + s.hub.URL + "/org/new/blob/main/.gitignore"
	if _, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir()); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	s.missing, s.private = false, false
	want = open + "it is there already, and public; make it private at " + s.hub.URL + "/org/new/settings, or upload with --public (upload.public = true in config.toml)"
	if _, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir()); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	s.private = true
	want = open + "it is there already, and private; make it public at " + s.hub.URL + "/org/new/settings, or upload without --public (upload.public = false in config.toml)"
	if _, err := OpenRepository(context.Background(), "hf://org/new", t.TempDir(), s.uploader(nil), true); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	s.private = false
	if r, err := OpenRepository(context.Background(), "hf://org/new/", t.TempDir(), s.uploader(nil), true); err != nil || r.Page() != s.hub.URL+"/org/new" || r.String() != "hf://org/new" {
		t.Errorf("%v %v", r, err)
	}
	for _, dest := range []string{"hf://", "hf://new", "hf://a/b/c", "org/new", "hf://org/../new", "hf://org/a\x1b[31m"} {
		if _, err := OpenRepository(context.Background(), dest, "", s.uploader(nil), false); err == nil || !strings.HasSuffix(err.Error(), "names no repository of the hub; write it as in hf://org/name") || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: %v", dest, err)
		}
	}
	// A token that may write, but make no repositories, will do where there is one.
	s = newRepository(t)
	s.missing, s.private = false, true
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/create") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	files := newModel()
	s.send(t, s.uploader(nil), files, folder(t, files), t.TempDir())
}

// TestUploadSecretsInErrors makes all kinds of failures and reads the messages.
func TestUploadSecretsInErrors(t *testing.T) {
	for _, path := range []string{"/create", "/revision/", "/tree/", "/preupload/", "/batch", "/up", "/complete", "/verify", "/commit/"} {
		for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
			"drop": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"403": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Error-Message", r.Header.Get("Authorization")+signed)
				w.WriteHeader(403)
			},
			"bad redirect": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "gopher://x/?"+signed)
				w.WriteHeader(307)
			},
			"dead redirect": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "http://127.0.0.1:1/?"+signed)
				w.WriteHeader(307)
			},
			"endless redirects": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", r.URL.Path+"?"+signed)
				w.WriteHeader(307)
			},
			"nonsense": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<\x1b[31m"+signed) },
		} {
			s := newRepository(t)
			s.inject(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.URL.Path, path) || strings.Contains(r.URL.Path, path) && path != "/up" {
					answer(w, r)
					return true
				}
				return false
			})
			_, err := upload(context.Background(), s.uploader(nil), folder(t, newModel()), t.TempDir())
			if err == nil && !(name == "nonsense" && slices.Contains([]string{"/create", "/complete", "/verify", "/up"}, path)) && !(name == "403" && path == "/create") ||
				err != nil && (strings.Contains(err.Error(), "verysecret") || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 400) {
				t.Errorf("%s %s: %v", path, name, err)
			}
		}
	}
}

// TestUploadHostileAnswers offers what must not be taken.
func TestUploadHostileAnswers(t *testing.T) {
	files := map[string][]byte{"model.safetensors": random(50, 100_000)}
	dir := folder(t, files)
	oid := digestOf(files["model.safetensors"])
	batch := func(upload string) string {
		return fmt.Sprintf(`{"objects": [{"oid": %q, "size": 100000, "actions": {"upload": %s}}]}`, oid, upload)
	}
	for name, c := range map[string]struct{ path, answer string }{
		"another oid":       {"/batch", `{"objects": [{"oid": "x", "size": 100000}]}`},
		"no objects":        {"/batch", `{}`},
		"two objects":       {"/batch", fmt.Sprintf(`{"objects": [{"oid": %q}, {"oid": %q}]}`, oid, oid)},
		"no address":        {"/batch", batch(`{"href": ""}`)},
		"a file":            {"/batch", batch(`{"href": "file:///etc/passwd"}`)},
		"a path":            {"/batch", batch(`{"href": "/x"}`)},
		"user and password": {"/batch", batch(`{"href": "https://a:b@example.org/"}`)},
		"too few parts":     {"/batch", batch(`{"href": "http://127.0.0.1:1/", "header": {"chunk_size": "50000", "1": "http://127.0.0.1:1/"}}`)},
		"parts of nothing":  {"/batch", batch(`{"href": "http://127.0.0.1:1/", "header": {"chunk_size": 0}}`)},
		"negative parts":    {"/batch", batch(`{"href": "http://127.0.0.1:1/", "header": {"chunk_size": "-5"}}`)},
		"a part as number":  {"/batch", batch(`{"href": "http://127.0.0.1:1/", "header": {"chunk_size": 100000, "1": 7}}`)},
		"verify elsewhere":  {"/batch", fmt.Sprintf(`{"objects": [{"oid": %q, "actions": {"upload": {"href": "http://127.0.0.1:1/"}, "verify": {"href": "gopher://x"}}}]}`, oid)},
		"another file":      {"/preupload/", `{"files": [{"path": "../x", "uploadMode": "regular"}]}`},
		"no mode":           {"/preupload/", `{"files": [{"path": "model.safetensors", "uploadMode": "xet"}]}`},
		"much":              {"/preupload/", `{"x": "` + strings.Repeat("a", 9<<20) + `"}`},
		"the listing":       {"/tree/", `[{"type": "file", "path": "../../x", "size": 5, "oid": "` + oid + `"}]`},
	} {
		s := newRepository(t)
		s.inject(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, c.path) {
				return false
			}
			fmt.Fprint(w, c.answer)
			return true
		})
		_, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir())
		if err == nil || len(s.requests("PUT")) > 0 || len(s.commits) > 0 || len(err.Error()) > 300 || strings.Contains(err.Error(), "tries failed") {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

// TestUploadChangedFile changes a file while it is sent, and one before the commit.
func TestUploadChangedFile(t *testing.T) {
	files := newModel()
	for name, at := range map[string]string{"adapter.safetensors": "PUT", "config.json": "/commit/"} {
		dir := folder(t, files)
		s := newRepository(t)
		s.inject(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == at || strings.Contains(r.URL.Path, "/preupload/") && at != "PUT" && len(s.requests("/preupload/")) == len(files) {
				if err := os.WriteFile(filepath.Join(dir, name), random(51, len(files[name])), 0o666); err != nil {
					t.Error(err)
				}
			}
			return false
		})
		_, err := upload(context.Background(), s.uploader(nil), dir, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), "changed") || len(s.commits) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
