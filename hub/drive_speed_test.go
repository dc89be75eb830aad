//go:build bars

package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDriveSpeed uploads a file of 2 GB to a server that speaks Drive's protocol from a process of its own and with curl, which sends the
// file to the same server in one piece. In the middle of five turns the upload, its digest included, must reach 80 % of curl's throughput,
// and never take more than 64 MB of memory.
func TestDriveSpeed(t *testing.T) {
	const turns, bytes = 5, 2_000_000_000
	dir := t.TempDir()
	name := filepath.Join(dir, "model.safetensors")
	writeRandom(t, name, bytes)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	made := map[string]any{"id": "made", "name": "model.safetensors", "size": strconv.Itoa(bytes), "sha256Checksum": hex.EncodeToString(sum.Sum(nil))}
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply := func(v any) { json.NewEncoder(w).Encode(v) }
		switch {
		case r.Method == http.MethodPut:
			if n, err := io.Copy(io.Discard, r.Body); err != nil || n != bytes {
				t.Errorf("%d bytes came: %v", n, err)
			}
			reply(made)
		case r.URL.Path == "/device/code":
			reply(map[string]any{"device_code": "x", "user_code": "ABCD-EFGH", "verification_url": "https://example.org/device", "interval": 1, "expires_in": 1800})
		case r.URL.Path == "/token":
			reply(map[string]any{"access_token": "x", "refresh_token": "x", "expires_in": 3600})
		case strings.HasPrefix(r.URL.Path, "/upload/"):
			w.Header().Set("Location", server.URL+"/session")
		case r.Method == http.MethodPost:
			reply(map[string]any{"id": "box"})
		default:
			reply(map[string]any{"files": []any{}})
		}
	}))
	defer server.Close()
	var shares []float64
	for range turns {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "QUARTET_TEST_DRIVE="+server.URL, "QUARTET_TEST_FOLDER="+dir, "QUARTET_TEST_STATE="+t.TempDir())
		started := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		ours, memory := time.Since(started), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		started = time.Now()
		if out, err := exec.Command("curl", "-sSf", "-o", "/dev/null", "-T", name, server.URL+"/session").CombinedOutput(); err != nil {
			t.Fatalf("curl: %v: %s", err, out)
		}
		curl := time.Since(started)
		share := curl.Seconds() / ours.Seconds()
		t.Logf("%.2f s; curl %.2f s: %.0f %% of its throughput; %d MB of memory", ours.Seconds(), curl.Seconds(), 100*share, memory>>10)
		if memory > 64_000_000>>10 {
			t.Errorf("%d kB of memory", memory)
		}
		shares = append(shares, share)
	}
	reaches(t, shares)
}
