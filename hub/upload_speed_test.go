package hub

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRepositorySpeed uploads a file of QUARTET_SPEED megabytes in parts of 16 MiB from a process of its own and holds time and
// memory against those of curl, which sends the file to the same storage in one piece.
func TestRepositorySpeed(t *testing.T) {
	megabytes, err := strconv.Atoi(os.Getenv("QUARTET_SPEED"))
	if err != nil {
		t.Skip("QUARTET_SPEED names no number of megabytes")
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range megabytes {
		if _, err := f.Write(random(uint64(i), 1_000_000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := newRepository(t)
	s.chunk = 16 << 20
	var begun, joined time.Time
	s.inject(func(w http.ResponseWriter, r *http.Request) bool {
		switch path := r.URL.Path; {
		case r.Method == http.MethodPut:
			s.set(func() {
				if begun.IsZero() {
					begun = time.Now()
				}
			})
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil || n != r.ContentLength {
				t.Errorf("%d of %d bytes: %v", n, r.ContentLength, err)
			}
			w.Header().Set("ETag", `"x"`)
		case path == "/complete":
			joined = time.Now()
		case strings.Contains(path, "/commit/"):
			fmt.Fprint(w, "{}")
		case path != "/verify":
			return false
		}
		return true
	})
	for range 3 {
		begun = time.Time{}
		cmd := uploading(s, dir, t.TempDir())
		started := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		all, sending := time.Since(started), joined.Sub(begun)
		memory := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		started = time.Now()
		if out, err := exec.Command("curl", "-sSf", "-o", "/dev/null", "-T", f.Name(), s.storage.URL+"/up").CombinedOutput(); err != nil {
			t.Fatalf("curl: %v: %s", err, out)
		}
		curl := time.Since(started)
		t.Logf("%d MB: %.2f s, of which %.2f s sending; curl %.2f s: %.0f %% of its throughput, sending alone %.0f %%; %d MB of memory",
			megabytes, all.Seconds(), sending.Seconds(), curl.Seconds(), 100*curl.Seconds()/all.Seconds(), 100*curl.Seconds()/sending.Seconds(), memory>>10)
	}
}
