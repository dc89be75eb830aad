package hub

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// driveServer speaks as much of Google's protocol as Drive uses.
type driveServer struct {
	*httptest.Server
	mu       sync.Mutex
	grants   []string // what the polls are answered, in order; "" for a token
	token    string   // the one that is good
	issued   int
	files    map[string]*driveFile // by id
	sessions map[string]*driveFile // by id
	made     int
	received int64  // bytes of content
	cutAt    int64  // content is cut off there, once; below 0 never
	fail     []int  // statuses of the next answers
	reason   string // of the failures
	limit    int    // bytes that one PUT may bring, 0 for all, below 0 for none
	hostile  string // a name that all files are listed with
	damage   bool
	md5Only  bool // no other digest is told
	cut      func()
}

type driveFile struct {
	id, name, parent, kind string
	data                   []byte
	size                   int
}

func (s *driveServer) json(f *driveFile, damage bool) map[string]any {
	sum, sum256 := md5.Sum(f.data), sha256.Sum256(f.data)
	m := map[string]any{"id": f.id, "name": f.name, "size": strconv.Itoa(len(f.data)), "md5Checksum": hex.EncodeToString(sum[:]), "sha256Checksum": hex.EncodeToString(sum256[:])}
	if damage {
		m["sha256Checksum"], m["md5Checksum"] = strings.Repeat("0", 64), strings.Repeat("0", 32)
	}
	if s.md5Only {
		delete(m, "sha256Checksum")
	}
	return m
}

func newDriveServer(t *testing.T) *driveServer {
	s := &driveServer{files: map[string]*driveFile{}, sessions: map[string]*driveFile{}, cutAt: -1, grants: []string{""}, cut: func() {}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *driveServer) grant(w http.ResponseWriter) {
	s.issued++
	s.token = fmt.Sprintf("verysecret-access-%d", s.issued)
	json.NewEncoder(w).Encode(map[string]any{"access_token": s.token, "refresh_token": "verysecret-refresh", "expires_in": 3600})
}

func (s *driveServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := func(v any) { json.NewEncoder(w).Encode(v) }
	switch {
	case r.URL.Path == "/device/code":
		reply(map[string]any{"device_code": "verysecret-device", "user_code": "ABCD-EFGH", "verification_url": "https://example.org/device", "interval": 5, "expires_in": 1800})
		return
	case r.URL.Path == "/token" && r.FormValue("client_secret") != "verysecret-client":
		w.WriteHeader(401)
		reply(map[string]any{"error": "invalid_client"})
		return
	case r.URL.Path == "/token" && r.FormValue("grant_type") == "refresh_token":
		if r.FormValue("refresh_token") != "verysecret-refresh" {
			w.WriteHeader(400)
			reply(map[string]any{"error": "invalid_grant"})
			return
		}
		s.grant(w)
		return
	case r.URL.Path == "/token":
		say := s.grants[0]
		s.grants = s.grants[1:]
		if say != "" {
			w.WriteHeader(428)
			reply(map[string]any{"error": say})
			return
		}
		s.grant(w)
		return
	}
	if len(s.fail) > 0 {
		code := s.fail[0]
		s.fail = s.fail[1:]
		w.WriteHeader(code)
		reply(map[string]any{"error": map[string]any{"errors": []any{map[string]any{"reason": s.reason, "message": "verysecret\x1b[31m"}}}})
		return
	}
	if session := r.URL.Query().Get("session"); session != "" {
		s.content(w, r, session)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+s.token {
		w.WriteHeader(401)
		return
	}
	var meta struct {
		Name, MimeType string
		Parents        []string
	}
	json.NewDecoder(r.Body).Decode(&meta)
	s.made++
	switch {
	case strings.HasPrefix(r.URL.Path, "/upload/"):
		f := &driveFile{id: fmt.Sprintf("file%d", s.made), name: meta.Name}
		if len(meta.Parents) == 1 {
			f.parent = meta.Parents[0]
		}
		if r.Method == http.MethodPatch {
			old := s.files[filepath.Base(r.URL.Path)]
			f.id, f.name, f.parent = old.id, old.name, old.parent
		}
		f.size, _ = strconv.Atoi(r.Header.Get("X-Upload-Content-Length"))
		id := fmt.Sprintf("verysecret%d", s.made)
		s.sessions[id] = f
		w.Header().Set("Location", s.URL+"/upload/drive/v3/files?session="+id)
	case r.Method == http.MethodPost:
		f := &driveFile{id: fmt.Sprintf("folder%d", s.made), name: meta.Name, parent: meta.Parents[0], kind: meta.MimeType}
		s.files[f.id] = f
		reply(s.json(f, false))
	default:
		q := r.URL.Query().Get("q")
		files := []any{}
		for _, f := range s.files {
			name := "name = '" + strings.ReplaceAll(f.name, "'", `\'`) + "' and '" + f.parent + "' in parents"
			if strings.HasPrefix(q, name) && (f.kind != "") == strings.Contains(q, "mimeType = ") {
				m := s.json(f, false)
				if s.hostile != "" {
					m["name"] = s.hostile
				}
				files = append(files, m)
			}
		}
		reply(map[string]any{"files": files})
	}
}

// content takes bytes of a session.
func (s *driveServer) content(w http.ResponseWriter, r *http.Request, session string) {
	f := s.sessions[session]
	if f == nil {
		w.WriteHeader(404)
		return
	}
	var from, to, size int
	if _, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size); err == nil {
		if from != len(f.data) || size != f.size || to != size-1 {
			w.WriteHeader(400)
			return
		}
		body := io.Reader(r.Body)
		if s.limit != 0 {
			body = io.LimitReader(body, int64(s.limit))
		}
		buf := make([]byte, 32<<10)
		for {
			n, err := body.Read(buf)
			s.received += int64(n)
			f.data = append(f.data, buf[:n]...)
			if s.cutAt >= 0 && s.received >= s.cutAt {
				s.cutAt = -1
				f.data = f.data[:len(f.data)&^(256<<10-1)] // Google keeps whole quarters of a MiB
				s.cut()
				panic(http.ErrAbortHandler)
			}
			if err != nil {
				break
			}
		}
	}
	if len(f.data) < f.size {
		if len(f.data) > 0 {
			w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(f.data)-1))
		}
		w.WriteHeader(308)
		return
	}
	s.files[f.id] = f
	json.NewEncoder(w).Encode(s.json(f, s.damage))
}

// drive is a client of the server that notes its waits, as of a program that starts anew with the files in dir.
func (s *driveServer) drive(dir string, waits *[]time.Duration, shown *[]string) *Drive {
	d := newDrive("box/in", filepath.Join(dir, "state"), s.URL, login{id: "me", secret: "verysecret-client", address: s.URL, file: filepath.Join(dir, "config", "drive.json"),
		show: func(address, code string) {
			if shown != nil {
				*shown = append(*shown, address+" "+code)
			}
		}})
	d.calls.wait = func(ctx context.Context, t time.Duration) error {
		if waits != nil {
			*waits = append(*waits, t)
		}
		return ctx.Err()
	}
	return d
}

func (s *driveServer) holds(t *testing.T, want []byte) {
	t.Helper()
	var found []string
	for _, f := range s.files {
		if f.kind == "" {
			found = append(found, f.name)
			if f.name != "it's.bin" || digestOf(f.data) != digestOf(want) {
				t.Errorf("%s holds %d other bytes", f.name, len(f.data))
			}
		}
	}
	if len(found) != 1 {
		t.Errorf("the folder holds %v", found)
	}
}

const driveName = "sub/it's.bin"

func TestDriveSignIn(t *testing.T) {
	name, data := randomFile(t, 5, 700_000)
	s := newDriveServer(t)
	s.grants = []string{"authorization_pending", "slow_down", "authorization_pending", ""}
	dir := t.TempDir()
	var waits []time.Duration
	var shown []string
	d := s.drive(dir, &waits, &shown)
	var there int64
	if err := d.Put(context.Background(), driveName, name, func(n int64) { there += n }); err != nil || there != int64(len(data)) {
		t.Fatalf("%d bytes: %v", there, err)
	}
	s.holds(t, data)
	if !slices.Equal(waits, []time.Duration{5e9, 5e9, 10e9, 10e9}) || !slices.Equal(shown, []string{"https://example.org/device ABCD-EFGH"}) {
		t.Errorf("waited %v, showed %v", waits, shown)
	}
	if info, err := os.Stat(d.login.file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the token's file: %v %v", info, err)
	}
	// The next program uses the token, refreshes one that the server does not take, and sends nothing again.
	s.token = "another"
	there = 0
	before := s.received
	if err := s.drive(dir, &waits, &shown).Put(context.Background(), driveName, name, func(n int64) { there += n }); err != nil || there != int64(len(data)) {
		t.Errorf("%d bytes: %v", there, err)
	}
	if s.received != before || len(shown) != 1 || s.issued != 2 {
		t.Errorf("again: %d bytes, %d codes, %d tokens", s.received-before, len(shown), s.issued)
	}
	// Another content takes the same file's place.
	changed, other := randomFile(t, 6, 300_000)
	if err := s.drive(dir, nil, &shown).Put(context.Background(), driveName, changed, func(int64) {}); err != nil {
		t.Error(err)
	}
	s.holds(t, other)
	// A token that was withdrawn leads to a new code.
	if err := os.WriteFile(d.login.file, []byte(`{"refresh_token":"withdrawn"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.grants = []string{""}
	if err := s.drive(dir, nil, &shown).Put(context.Background(), driveName, name, func(int64) {}); err != nil || len(shown) != 2 {
		t.Errorf("%v after %d codes", err, len(shown))
	}
}

func TestDriveResume(t *testing.T) {
	name, data := randomFile(t, 7, 3_000_000)
	s := newDriveServer(t)
	s.limit = 1 << 20 // the server answers 308 after every MiB
	dir := t.TempDir()
	if err := s.drive(dir, nil, nil).Put(context.Background(), driveName, name, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	s.holds(t, data)
	if left, _ := os.ReadDir(filepath.Join(dir, "state")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	// A session that expired is begun anew, a busy server is waited for.
	s = newDriveServer(t)
	s.fail, s.reason = []int{503, 429, 403}, "userRateLimitExceeded"
	var waits []time.Duration
	if err := s.drive(t.TempDir(), &waits, nil).Put(context.Background(), driveName, name, func(int64) {}); err != nil || len(waits) != 4 {
		t.Errorf("%v after waits %v", err, waits)
	}
	s.holds(t, data)
}

// TestDriveMD5 has a server that tells no other digest.
func TestDriveMD5(t *testing.T) {
	name, data := randomFile(t, 7, 300_000)
	s := newDriveServer(t)
	s.md5Only = true
	dir := t.TempDir()
	for range 2 {
		if err := s.drive(dir, nil, nil).Put(t.Context(), driveName, name, func(int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	s.holds(t, data)
	if s.received != int64(len(data)) {
		t.Errorf("%d bytes came of a file that was there", s.received-int64(len(data)))
	}
	s.damage = true
	other, _ := randomFile(t, 8, 300_000)
	if err := s.drive(dir, nil, nil).Put(t.Context(), driveName, other, func(int64) {}); err == nil || !strings.Contains(err.Error(), "the content arrived altered") {
		t.Error(err)
	}
}

// TestDriveCuts kills uploads at random bytes. QUARTET_CUTS=100 makes it 100 files of 256 MB.
func TestDriveCuts(t *testing.T) {
	cuts, size := 10, 6_000_000
	if n, err := strconv.Atoi(os.Getenv("QUARTET_CUTS")); err == nil {
		cuts, size = n, 256<<20
	}
	name, data := randomFile(t, 8, size)
	worst := 0.0
	for range cuts {
		s := newDriveServer(t)
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		at := rand.Int64N(int64(size))
		s.cutAt, s.cut = at, cancel
		if err := s.drive(dir, nil, nil).Put(ctx, driveName, name, func(int64) {}); err == nil {
			t.Fatal("it was not cut")
		}
		cancel()
		var there int64
		if err := s.drive(dir, nil, nil).Put(context.Background(), driveName, name, func(n int64) { there += n }); err != nil || there != int64(size) {
			t.Fatalf("cut at %d: %d bytes: %v", at, there, err)
		}
		s.holds(t, data)
		worst = max(worst, float64(s.received)/float64(size))
		s.Close()
		s.files, s.sessions = nil, nil // the server lives until the test ends
	}
	if worst > 1.1 {
		t.Errorf("%.3f of the content was sent", worst)
	}
	t.Logf("%d cuts of %d bytes: at most %.3f of the content sent", cuts, size, worst)
}

func TestDriveRefusals(t *testing.T) {
	name, _ := randomFile(t, 9, 1000)
	const on = "upload sub/it's.bin to gdrive://box/in: "
	for want, set := range map[string]func(s *driveServer, d *Drive){
		on + "the access to Google Drive was denied; run again and allow it":             func(s *driveServer, _ *Drive) { s.grants = []string{"authorization_pending", "access_denied"} },
		on + "the code was not entered in time; run again for another one":               func(s *driveServer, _ *Drive) { s.grants = []string{"expired_token"} },
		on + "the OAuth client is not taken by Google; check QUARTET_DRIVE_CLIENT_ID":    func(_ *driveServer, d *Drive) { d.login.secret = "verysecret-other" },
		on + "the Google Drive is full; free some space or buy more":                     func(s *driveServer, _ *Drive) { s.fail, s.reason = []int{403}, "storageQuotaExceeded" },
		on + "access is not allowed by Google Drive; remove ":                            func(s *driveServer, _ *Drive) { s.fail, s.reason = []int{403}, "insufficientPermissions" },
		on + "nothing of what was sent was kept by Google Drive; 6 tries failed, run":    func(s *driveServer, _ *Drive) { s.limit = -1 },
		on + "the Drive API answered 500; 6 tries failed, run again to go on from here":  func(s *driveServer, _ *Drive) { s.fail = slices.Repeat([]int{500}, 9) },
		on + "the content arrived altered; something between here and Google Drive":      func(s *driveServer, _ *Drive) { s.damage = true },
		on + "connect to 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused": func(_ *driveServer, d *Drive) { d.api = "http://127.0.0.1:1" },
	} {
		s := newDriveServer(t)
		d := s.drive(t.TempDir(), nil, nil)
		set(s, d)
		err := d.Put(context.Background(), driveName, name, func(int64) {})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x1b") || strings.Contains(err.Error(), "verysecret") {
			t.Errorf("%v, not %s", err, want)
		}
	}
	for _, dest := range []string{"gdrive://", "gdrive://../x", "gdrive://a//b", "drive://a", "gdrive://a\x1b[31m"} {
		if _, err := OpenDrive(dest, "", nil); err == nil || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: %v", dest, err)
		}
	}
}

// TestDriveHostileAnswers lists files under names that were not asked for, and sends the content to another host.
func TestDriveHostileAnswers(t *testing.T) {
	name, _ := randomFile(t, 10, 1000)
	for _, hostile := range []string{"../../x", "/etc/passwd", "a\x1b[31m", "CON", strings.Repeat("x", 5000)} {
		s := newDriveServer(t)
		s.hostile = hostile
		dir := t.TempDir()
		if err := s.drive(dir, nil, nil).Put(context.Background(), driveName, name, func(int64) {}); err != nil {
			t.Errorf("%.20q: %v", hostile, err)
		}
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() && path != filepath.Join(dir, "config", "drive.json") {
				t.Errorf("%.20q: wrote %s", hostile, path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	d := newDriveServer(t).drive(t.TempDir(), nil, nil)
	u := &driveUpload{Drive: d}
	for _, session := range []string{"https://example.org/x", "file:///etc/passwd", "", "//example.org", strings.Replace(d.api, "127.0.0.1", "127.0.0.2", 1)} {
		if u.own(session) {
			t.Errorf("%q is taken for an address of Drive", session)
		}
	}
	if _, err := url.Parse(d.api); err != nil || !u.own(d.api+"/upload?x=1") {
		t.Error("its own address is not")
	}
}

// randomFile is a file of random bytes, the same for a seed, and those bytes.
func randomFile(t *testing.T, seed uint64, size int) (string, []byte) {
	t.Helper()
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(seed)})
	source.Read(data)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name, data
}
