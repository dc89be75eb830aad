//go:build bars

package hub

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writeRandom fills a file.
func writeRandom(t *testing.T, name string, bytes int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < bytes; i += 1_000_000 {
		if _, err := f.Write(random(uint64(i), min(1_000_000, bytes-i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRepositorySpeed uploads a file of 2 GB in parts of 16 MiB from a process of its own and with curl, which sends the file to the same
// storage in one piece. In the middle of five turns the upload, the file's digest included, which the protocol wants first, must reach 80 %
// of curl's throughput, and never take more than 64 MB of memory. The sending alone is told, too.
func TestRepositorySpeed(t *testing.T) {
	const turns, bytes = 5, 2_000_000_000
	dir := t.TempDir()
	name := filepath.Join(dir, "model.safetensors")
	writeRandom(t, name, bytes)
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
	var shares []float64
	for range turns {
		begun = time.Time{}
		cmd := uploading(s, dir, t.TempDir())
		started := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		all, sending := time.Since(started), joined.Sub(begun)
		memory := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		started = time.Now()
		if out, err := exec.Command("curl", "-sSf", "-o", "/dev/null", "-T", name, s.storage.URL+"/up").CombinedOutput(); err != nil {
			t.Fatalf("curl: %v: %s", err, out)
		}
		curl := time.Since(started)
		share := curl.Seconds() / all.Seconds()
		t.Logf("%.2f s, of which %.2f s sending; curl %.2f s: %.0f %% of its throughput, sending alone %.0f %%; %d MB of memory",
			all.Seconds(), sending.Seconds(), curl.Seconds(), 100*share, 100*curl.Seconds()/sending.Seconds(), memory>>10)
		if memory > 64_000_000>>10 {
			t.Errorf("%d kB of memory", memory)
		}
		shares = append(shares, share)
	}
	reaches(t, shares)
}

// reaches fails unless the middle of the turns is 80 % of curl's throughput.
func reaches(t *testing.T, shares []float64) {
	t.Helper()
	slices.Sort(shares)
	if middle := shares[len(shares)/2]; middle < 0.8 {
		t.Errorf("%.0f %% of curl's throughput", 100*middle)
	}
}
