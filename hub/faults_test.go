package hub

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// hold lets a request wait for its own end once that many bytes of content have come, and calls then for the first of them.
func hold(s *server, bytes int, then func()) func(http.ResponseWriter, *http.Request) bool {
	var held atomic.Bool
	return func(_ http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		sent := s.sent
		s.mu.Unlock()
		if sent < bytes {
			return false
		}
		if held.CompareAndSwap(false, true) {
			then()
		}
		<-r.Context().Done()
		return true
	}
}

// interrupted is a cache in which a download was stopped after about that many bytes.
func interrupted(t *testing.T, s *server, bytes int) (cache string) {
	t.Helper()
	cache = filepath.Join(t.TempDir(), "hub")
	ctx, cancel := context.WithCancel(context.Background())
	s.inject(hold(s, bytes, cancel))
	if _, err := s.client(cache, nil).Download(ctx, tiny, noProgress); err == nil {
		t.Fatal("it was not interrupted")
	}
	s.inject(nil)
	s.content()
	return cache
}

func TestResumeByRange(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	cache := interrupted(t, s, 150_000)
	var first int64 = -1
	c := s.client(cache, nil)
	snapshot, err := c.Download(context.Background(), tiny, func(done, _ int64) {
		if first < 0 && done > 1000 {
			first = done
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	holds(t, c, snapshot, files)
	if all := s.content() + int(first); all < 300_000+23 || all > 330_000 || first < 50_000 {
		t.Errorf("%d bytes came in all after a resume that began with %d", all, first)
	}
}

// TestWholeFor206 asks a storage that knows no ranges.
func TestWholeFor206(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	cache := interrupted(t, s, 100_000)
	s.inject(func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false })
	s.budget = 100_000
	var done int64
	c := s.client(cache, nil)
	c.wait = func(context.Context, time.Duration) error { s.set(func() { s.budget = -1 }); return nil }
	snapshot, err := c.Download(context.Background(), tiny, func(n, total int64) {
		if done = n; n > total {
			t.Errorf("%d of %d bytes", n, total)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	holds(t, c, snapshot, files)
	if s.content() < 400_000-32_000 || done != 300_000+23 {
		t.Errorf("it did not start at 0 after a drop; told %d", done)
	}
}

// TestChangedFile puts another file in the place of the one that is being fetched.
func TestChangedFile(t *testing.T) {
	for _, size := range []int{300_000, 310_000} {
		files := tinyModel()
		s := newServer(t, files)
		changed := false
		s.inject(func(_ http.ResponseWriter, r *http.Request) bool {
			s.set(func() {
				if s.sent > 100_000 && !changed {
					changed = true
					s.files["model.safetensors"] = random(20, size)
				}
			})
			return false
		})
		c := s.client("", nil)
		var last, total int64
		snapshot, err := c.Download(context.Background(), tiny, func(done, of int64) { last, total = done, of })
		if err != nil {
			t.Fatal(err)
		}
		holds(t, c, snapshot, files)
		if last != total || total != int64(size)+23 {
			t.Errorf("told %d of %d bytes", last, total)
		}
	}
}

// TestChangedBetweenRuns resumes a file of which the hub now has another version, at the same commit.
func TestChangedBetweenRuns(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	cache := interrupted(t, s, 100_000)
	files["model.safetensors"] = random(21, 300_000)
	c := s.client(cache, nil)
	s.claim = func(e map[string]any) { // the listing is a little old
		if lfs, ok := e["lfs"].(map[string]any); ok {
			lfs["oid"] = digestOf(tinyModel()["model.safetensors"])
		}
	}
	got, err := os.ReadFile(filepath.Join(download(t, c, tiny).Dir, "model.safetensors"))
	if err != nil || digestOf(got) != digestOf(files["model.safetensors"]) {
		t.Errorf("not the hub's present file: %v", err)
	}
}

// TestDamagedPart resumes a file whose bytes are not those that came, as after a power cut.
func TestDamagedPart(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	cache := interrupted(t, s, 150_000)
	c := s.client(cache, nil)
	at := c.blob(tiny, digestOf(files["model.safetensors"])) + contentSuffix
	data, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[:4096])
	if err := os.WriteFile(at, data, 0o666); err != nil {
		t.Fatal(err)
	}
	holds(t, c, download(t, c, tiny), files)
}

func TestWrongDigest(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	right := digestOf(files["model.safetensors"])
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/store/") {
			s.serve(w, r, random(30, 300_000))
			return true
		}
		return false
	})
	c := s.client("", nil)
	_, err := c.Download(context.Background(), tiny, noProgress)
	want := fmt.Sprintf("download org/tiny: model.safetensors: the digest is wrong, %s rather than the hub's %s; something between here and the hub alters files, run again on another network", digestOf(random(30, 300_000)), right)
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(c.blob(tiny, right)); err == nil {
		t.Error("the wrong file is in the cache")
	}
	s.inject(nil)
	holds(t, c, download(t, c, tiny), files)
}

// TestExpiredLinks gives links to the storage that are good for two answers.
func TestExpiredLinks(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	s.expires = 2
	c := s.client("", func(d time.Duration) { t.Errorf("it waited %s", d) })
	c.workers = 2
	holds(t, c, download(t, c, tiny), files)
	if n := len(s.requests("hub HEAD", "model.safetensors")); n < 5 {
		t.Errorf("%d links for 10 parts", n)
	}
}

func TestWaiting(t *testing.T) {
	answer := func(code int, header ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		low    time.Duration // the wait; 0 for one of the client's own choice
	}{
		"429 in seconds":    {answer(429, "Retry-After", "7"), 7 * time.Second},
		"429 with a date":   {answer(429, "Retry-After", "Tue, 01 Jan 2030 12:00:42 GMT"), 42 * time.Second},
		"429 with a window": {answer(429, "RateLimit", `"resolvers";r=0;t=33`), 33 * time.Second},
		"503 in seconds":    {answer(503, "Retry-After", "9"), 9 * time.Second},
		"429":               {answer(429), 0},
		"408":               {answer(408), 0},
		"500":               {answer(500), 0},
		"a drop":            {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			// Each of the four kinds of requests fails once.
			files := tinyModel()
			s := newServer(t, files)
			failed := map[string]bool{}
			s.inject(func(w http.ResponseWriter, r *http.Request) (fails bool) {
				kind := r.Method + " " + strings.Split(r.URL.Path, "/")[1]
				if strings.Contains(r.URL.Path, "/tree/") {
					kind = "tree"
				}
				s.set(func() { fails = !failed[kind]; failed[kind] = true })
				if fails {
					c.answer(w)
				}
				return fails
			})
			var waits []time.Duration
			client := s.client("", func(d time.Duration) { s.set(func() { waits = append(waits, d) }) })
			holds(t, client, download(t, client, tiny), files)
			if least := map[bool]int{false: 4, true: 2}[name == "a drop"]; len(waits) < least { // net/http mends drops of connections it had open
				t.Errorf("waits %v", waits)
			}
			for _, d := range waits {
				if c.low != 0 && d != c.low || c.low == 0 && (d < 500*time.Millisecond || d > 700*time.Millisecond) {
					t.Errorf("waited %s", d)
				}
			}
		})
	}
}

// TestGivingUp bounds the tries, and their waits.
func TestGivingUp(t *testing.T) {
	s := newServer(t, tinyModel())
	s.inject(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(502); return true })
	var waits []time.Duration
	c := s.client("", func(d time.Duration) { waits = append(waits, d) })
	_, err := c.Download(context.Background(), tiny, noProgress)
	want := fmt.Sprintf("list org/tiny: %s answered 502; 6 tries failed, run again to go on from here", strings.TrimPrefix(s.hub.URL, "http://"))
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if len(s.requests()) != 6 || len(waits) != 5 || waits[4] < 8*time.Second || waits[4] > 10*time.Second {
		t.Errorf("%d tries, waits %v", len(s.requests()), waits)
	}
	s.inject(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "7200")
		w.WriteHeader(429)
		return true
	})
	waits = nil
	_, err = c.Download(context.Background(), tiny, noProgress)
	if err == nil || !strings.HasSuffix(err.Error(), "answered 429; the server asks to wait 2h0m0s, so run again then") || len(waits) > 0 {
		t.Errorf("%v after waiting %v", err, waits)
	}
}

// TestSilence ends connections on which nothing comes.
func TestSilence(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	var silent atomic.Int32
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/store/") || silent.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	c := s.client("", nil)
	c.part = 1 << 20 // one part, so that a 200 is an answer
	impatient(c, 50*time.Millisecond)
	s.set(func() { s.files["model.safetensors"] = random(1, 300_000) })
	holds(t, c, download(t, c, tiny), files)
}

func TestTokenStaysAtHome(t *testing.T) {
	files := tinyModel()
	s := newServer(t, files)
	c := s.client("", nil)
	c.Token = secret
	holds(t, c, download(t, c, tiny), files)
	if with, all := len(s.requests("hub", `auth="Bearer `+secret)), len(s.requests("hub")); with != all || all == 0 {
		t.Errorf("%d of %d requests to the hub had the token", with, all)
	}
	if with, all := len(s.requests("storage", secret)), len(s.requests("storage")); with != 0 || all == 0 {
		t.Errorf("%d of %d requests to the storage had the token", with, all)
	}
	// A call that is redirected to another host does not take the token along either.
	away := newServer(t, files)
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, away.hub.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	c = s.client("", nil)
	c.Token = secret
	download(t, c, tiny)
	if with, all := len(away.requests(secret)), len(away.requests()); with != 0 || all == 0 {
		t.Errorf("%d of %d redirected requests had the token", with, all)
	}
}

// TestSecretsInErrors makes every kind of failure there is and reads the messages.
func TestSecretsInErrors(t *testing.T) {
	for name, fault := range map[string]func(s *server) func(http.ResponseWriter, *http.Request) bool{
		"drops": func(*server) func(http.ResponseWriter, *http.Request) bool {
			return func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.URL.Path, "/store/") {
					panic(http.ErrAbortHandler)
				}
				return false
			}
		},
		"storage gone": func(s *server) func(http.ResponseWriter, *http.Request) bool { s.storage.Close(); return nil },
		"403": func(*server) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("X-Error-Message", r.Header.Get("Authorization"))
				w.WriteHeader(403)
				return true
			}
		},
		"bad redirect": func(*server) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Location", "gopher://x/?"+signed)
				w.WriteHeader(302)
				return true
			}
		},
		"endless redirects": func(*server) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Location", r.URL.Path+"?"+signed)
				w.WriteHeader(302)
				return true
			}
		},
	} {
		s := newServer(t, tinyModel())
		s.inject(fault(s))
		c := s.client("", nil)
		c.Token = secret
		_, err := c.Download(context.Background(), tiny, noProgress)
		if err == nil || strings.Contains(err.Error(), "verysecret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		code        int
		problem     string
		token, want string
	}{
		{401, "", "", "it is private or does not exist; check its name, or set HF_TOKEN to a token that may read it"},
		{401, "RepoNotFound", secret, "the hub does not take the token, or there is no such model; check the name, and make a new token at HUB/settings/tokens"},
		{401, "GatedRepo", "", "its licence must be accepted first; do that at HUB/org/tiny and set HF_TOKEN to a token of that account"},
		{403, "GatedRepo", secret, "its licence must be accepted first; do that at HUB/org/tiny with the account that HF_TOKEN is of"},
		{403, "", secret, "the token may not read it; give it that right at HUB/settings/tokens, or ask the owner for access at HUB/org/tiny"},
		{404, "RepoNotFound", "", "there is no such model; check its name, and if it is private set HF_TOKEN"},
		{404, "RepoNotFound", secret, "there is no such model, or the token may not see it; check its name and HF_TOKEN"},
		{404, "RevisionNotFound", "", "it has no revision v9; see HUB/org/tiny/commits for those it has"},
		{418, "", "", "HOST answered 418, which is no answer of a hub; check HF_ENDPOINT and the proxy"},
	} {
		s := newServer(t, tinyModel())
		s.inject(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("X-Error-Code", c.problem)
			w.WriteHeader(c.code)
			return true
		})
		client := s.client("", nil)
		client.Token = c.token
		_, err := client.Download(context.Background(), Repo{Model, "org/tiny", "v9"}, noProgress)
		want := "list org/tiny: " + strings.NewReplacer("HUB", s.hub.URL, "HOST", strings.TrimPrefix(s.hub.URL, "http://")).Replace(c.want)
		if err == nil || err.Error() != want || len(s.requests()) != 1 {
			t.Errorf("%d %s: %v, not %s", c.code, c.problem, err, want)
		}
	}
	// A licence may be asked for only where the file is.
	s := newServer(t, tinyModel())
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/resolve/") {
			return false
		}
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.WriteHeader(403)
		return true
	})
	_, err := s.client("", nil).Download(context.Background(), tiny, noProgress)
	if err == nil || !strings.HasPrefix(err.Error(), "download org/tiny: config.json: its licence must be accepted first; ") {
		t.Errorf("%v", err)
	}
}

// TestHostileServer tries to write outside the cache, or to make the client take what it should not.
func TestHostileServer(t *testing.T) {
	path := func(p string) func(map[string]any) {
		return func(e map[string]any) {
			if e["path"] == "config.json" {
				e["path"] = p
			}
		}
	}
	for name, claim := range map[string]func(map[string]any){
		"up": path("../../x.json"), "up in the middle": path("a/../../../x"), "absolute": path("/etc/x"), "NUL": path("a\x00b"),
		"escape": path("a\x1b[31m"), "backslash": path(`..\x`), "device": path("a/CON.json"), "port": path("lpt1"), "empty": path(""),
		"dot": path("./config.json"), "double slash": path("a//b"), "bad UTF-8 as is": path("a\u202eb\u0085"), "long": path(strings.Repeat("a", 300)),
		"size":       func(e map[string]any) { e["size"] = -5 },
		"huge":       func(e map[string]any) { e["size"] = int64(1) << 62 },
		"digest":     func(e map[string]any) { e["oid"] = "../../x" },
		"lfs digest": func(e map[string]any) { e["lfs"] = map[string]any{"oid": "x/y", "size": 5} },
	} {
		s := newServer(t, tinyModel())
		s.claim = claim
		dir := t.TempDir()
		c := s.client(filepath.Join(dir, "deep", "hub"), nil)
		_, err := c.Download(context.Background(), tiny, noProgress)
		if err == nil || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
			t.Errorf("%s: %v", name, err)
		}
		if left := outside(t, dir); len(left) > 0 {
			t.Errorf("%s: wrote %v", name, left)
		}
	}
	for name, header := range map[string][2]string{
		"tag": {"X-Linked-Etag", `"../../../x"`}, "hidden tag": {"X-Linked-Etag", `".x"`}, "size": {"X-Linked-Size", "-1"}, "no size": {"X-Linked-Size", "many"},
	} {
		s := newServer(t, tinyModel())
		s.inject(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/resolve/") {
				return false
			}
			w.Header().Set(header[0], header[1])
			w.Header().Set("Location", s.storage.URL)
			w.WriteHeader(302)
			return true
		})
		dir := t.TempDir()
		_, err := s.client(filepath.Join(dir, "deep", "hub"), nil).Download(context.Background(), tiny, noProgress)
		if left := outside(t, dir); err == nil || len(left) > 0 {
			t.Errorf("%s: %v, wrote %v", name, err, left)
		}
	}
	for name, answer := range map[string]string{
		"commit": `{"sha": "../../../x"}`, "no commit": `{}`, "a page": `<html>`, "much": `{"sha": "` + strings.Repeat("a", 9<<20) + `"}`,
	} {
		s := newServer(t, tinyModel())
		s.inject(func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, answer); return true })
		if _, err := s.client("", nil).Download(context.Background(), tiny, noProgress); err == nil || len(err.Error()) > 200 {
			t.Errorf("%s: %.300v", name, err)
		}
	}
	s := newServer(t, tinyModel())
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/tree/") {
			w.Header().Set("Link", "<"+s.hub.URL+r.URL.Path+">; rel=\"next\"")
		}
		return false
	})
	if _, err := s.client("", nil).Download(context.Background(), tiny, noProgress); err == nil || !strings.Contains(err.Error(), "again and again") {
		t.Errorf("endless pages: %v", err)
	}
}

// outside is what lies in dir but not in its deep/hub, which holds no file outside blobs either.
func outside(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(path, filepath.Join(dir, "deep", "hub")+"/") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestRepoNames(t *testing.T) {
	for _, r := range []Repo{
		{Model, "", ""}, {Model, "../x", ""}, {Model, "a/b/c", ""}, {Model, "a/..", ""}, {Model, "a--b/c", ""}, {Model, "a/b?x", ""}, {Model, "/a", ""},
		{Model, "a/b", "../x"}, {Model, "a/b", "x/../../y"}, {Model, "a/b", "-x"}, {Model, "a/b", "a b"},
	} {
		if _, err := New(Settings{Endpoint: "http://127.0.0.1:1"}).Useful(context.Background(), r); err == nil || !strings.HasPrefix(err.Error(), "no re") {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
