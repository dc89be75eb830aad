//go:build bars && gateway

package hub

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestS3Speed uploads a file of 2 GB to versitygw from a process of its own and with curl, by turns. In the middle of five turns the
// sending must reach 80 % of curl's throughput, and never take more than 64 MB of memory. What the server does afterwards, which copies
// all parts into one file, is told, too. curl sends one piece that is not signed, and nothing verifies it.
func TestS3Speed(t *testing.T) {
	const turns, bytes = 5, 2_000_000_000
	g := newGateway(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "model.safetensors")
	writeRandom(t, name, bytes)
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://"+g.at)
	var shares []float64
	for range turns {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "QUARTET_TEST_DEST=s3://box/run", "QUARTET_TEST_FOLDER="+dir, "QUARTET_TEST_STATE="+t.TempDir())
		started := time.Now()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		last, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ours, sent, memory := time.Since(started), time.Unix(0, last).Sub(started), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		started = time.Now()
		if out, err := exec.Command("curl", "-sSf", "-o", "/dev/null", "-T", name, "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", gatewayKey+":"+gatewaySecret,
			"-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "http://"+g.at+"/box/curl.bin").CombinedOutput(); err != nil {
			t.Fatalf("curl: %v: %s", err, out)
		}
		curl := time.Since(started)
		share := curl.Seconds() / sent.Seconds()
		t.Logf("%.2f s, of which %.2f s sending; curl %.2f s: %.0f %% of its throughput, sending alone %.0f %%; %d MB of memory",
			ours.Seconds(), sent.Seconds(), curl.Seconds(), 100*curl.Seconds()/ours.Seconds(), 100*share, memory>>10)
		if memory > 64_000_000>>10 {
			t.Errorf("%d kB of memory", memory)
		}
		shares = append(shares, share)
		if err := os.RemoveAll(g.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(g.dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	reaches(t, shares)
}
