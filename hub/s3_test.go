//go:build gateway

package hub

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	gatewayKey    = "AKIDQUARTETTEST"
	gatewaySecret = "verysecret/of+the+gateway"
)

// gatewayProgram is versitygw, which serves a folder over S3's protocol; it is built once into a folder of the tests' own.
var gatewayProgram = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), "quartet-tests-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "install", "github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install versitygw: %w: %s", err, out)
	}
	return filepath.Join(dir, "versitygw"), nil
})

// gateway serves a temporary folder with the bucket "box" behind a line that can be cut, and points the environment at it.
type gateway struct {
	dir  string // of the bucket
	at   string // without the line
	line *wire
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	program, err := gatewayProgram()
	if err != nil {
		t.Fatal(err)
	}
	root, sidecar := t.TempDir(), t.TempDir()
	g := &gateway{dir: filepath.Join(root, "box")}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	cmd := exec.Command(program, "--port", at, "--quiet", "posix", "--sidecar", sidecar, root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+gatewayKey, "ROOT_SECRET_KEY="+gatewaySecret)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the gateway does not answer: %v", err)
		}
	}
	g.at, g.line = at, newLine(t, at)
	s3Settings(t, "http://"+g.line.at)
	t.Setenv("AWS_ACCESS_KEY_ID", gatewayKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", gatewaySecret)
	return g
}

// wire forwards connections. It counts what goes to the server, cuts everything when the budget is used up, and alters bytes.
type wire struct {
	at     string
	sent   atomic.Int64
	budget atomic.Int64 // bytes that may still go; the end calls cut
	alter  atomic.Bool  // the 300,000th byte of each connection
	cut    func()
}

func newLine(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &wire{at: l.Addr().String(), cut: func() {}}
	p.budget.Store(1 << 50)
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go p.forward(from, to)
		}
	}()
	return p
}

func (p *wire) forward(from net.Conn, to string) {
	defer from.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { io.Copy(from, server); from.Close() }()
	buf, seen := make([]byte, 32<<10), 0
	for {
		n, err := from.Read(buf)
		if n > 0 && p.budget.Add(-int64(n)) < 0 {
			p.cut()
			return
		}
		if i := 300_000 - seen; p.alter.Load() && i >= 0 && i < n {
			buf[i] ^= 1
		}
		seen += n
		p.sent.Add(int64(n))
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// put uploads a file to the bucket as a program that starts anew would.
func (g *gateway) put(t *testing.T, ctx context.Context, dest, local, state string, part int64) (int64, error) {
	t.Helper()
	s, err := OpenS3(ctx, dest, state)
	if err != nil {
		return 0, err
	}
	if part != 0 {
		s.part = part
	}
	var there atomic.Int64
	err = s.Put(ctx, "sub/weights.bin", local, func(n int64) { there.Add(n) })
	return there.Load(), err
}

func (g *gateway) holds(t *testing.T, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(g.dir, "run", "sub", "weights.bin"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the bucket holds %d other bytes: %v", len(got), err)
	}
}

func TestS3Upload(t *testing.T) {
	g := newGateway(t)
	for _, size := range []int{0, 1000, 12_000_000} {
		name, data := randomFile(t, 1, size)
		state := t.TempDir()
		if there, err := g.put(t, context.Background(), "s3://box/run/", name, state, 5<<20); err != nil || there != int64(size) {
			t.Fatalf("%d of %d bytes: %v", there, size, err)
		}
		g.holds(t, data)
		if left, _ := os.ReadDir(state); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		before := g.line.sent.Load()
		there, err := g.put(t, context.Background(), "s3://box/run", name, state, 5<<20)
		if again := g.line.sent.Load() - before; err != nil || there != int64(size) || again > 4000 {
			t.Errorf("again: %d bytes sent, %d there: %v", again, there, err)
		}
	}
}

// TestS3Cuts kills uploads at random bytes. QUARTET_CUTS=100 makes it 100 files of 256 MB.
func TestS3Cuts(t *testing.T) {
	g := newGateway(t)
	cuts, size, part := 3, 22_000_000, int64(5<<20)
	if n, err := strconv.Atoi(os.Getenv("QUARTET_CUTS")); err == nil {
		cuts, size, part = n, 256<<20, 8<<20
	}
	name, data := randomFile(t, 2, size)
	worst := 0.0
	for i := range cuts {
		state := t.TempDir()
		if err := os.RemoveAll(filepath.Join(g.dir, "run")); err != nil {
			t.Fatal(err)
		}
		before := g.line.sent.Load()
		ctx, cancel := context.WithCancel(context.Background())
		at := rand.Int64N(int64(size))
		g.line.cut = cancel
		g.line.budget.Store(at)
		if _, err := g.put(t, ctx, "s3://box/run", name, state, part); err == nil {
			t.Fatal("it was not cut")
		}
		cancel()
		g.line.budget.Store(1 << 50)
		if there, err := g.put(t, context.Background(), "s3://box/run", name, state, part); err != nil || there != int64(size) {
			t.Fatalf("cut at %d: %d bytes: %v", at, there, err)
		}
		g.holds(t, data)
		sent := g.line.sent.Load() - before
		worst = max(worst, float64(sent)/float64(size))
		if sent > int64(size)+3*part+int64(size)/100 || cuts > 3 && float64(sent) > 1.1*float64(size) {
			t.Errorf("%d: cut at %d: %d bytes sent of a file of %d", i, at, sent, size)
		}
	}
	t.Logf("%d cuts of %d bytes: at most %.3f of the content sent", cuts, size, worst)
}

func TestS3Refusals(t *testing.T) {
	g := newGateway(t)
	name, _ := randomFile(t, 3, 1_000_000)
	large, _ := randomFile(t, 4, 6_000_000)
	for _, c := range []struct {
		name, dest string
		set        [2]string
		alter      bool
		file, want string
	}{
		{"key", "s3://box/run", [2]string{"AWS_ACCESS_KEY_ID", "AKIDOTHER"}, false, name, "upload sub/weights.bin to s3://box/run: the server does not take the credentials; check AWS_ACCESS_KEY_ID"},
		{"secret", "s3://box/run", [2]string{"AWS_SECRET_ACCESS_KEY", "verysecret2"}, false, large, "upload sub/weights.bin to s3://box/run: the server does not take the credentials; check AWS_ACCESS_KEY_ID"},
		{"none", "s3://box/run", [2]string{"AWS_ACCESS_KEY_ID", ""}, false, name, "no AWS credentials are found; set AWS_ACCESS_KEY_ID"},
		{"bucket", "s3://nobox/run", [2]string{}, false, name, "upload sub/weights.bin to s3://nobox/run: there is no bucket nobox; check its name, or make it"},
		{"bucket, parts", "s3://nobox/run", [2]string{}, false, large, "upload sub/weights.bin to s3://nobox/run: there is no bucket nobox; check its name, or make it"},
		{"altered", "s3://box/run", [2]string{}, true, name, "upload sub/weights.bin to s3://box/run: the content arrived altered;"},
		{"altered part", "s3://box/run", [2]string{}, true, large, "upload sub/weights.bin to s3://box/run: the content arrived altered;"},
		{"nobody there", "s3://box/run", [2]string{"AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"}, false, name, "upload sub/weights.bin to s3://box/run: the connection failed; check the network"},
		{"address", "s3://Box", [2]string{}, false, name, `"s3://Box" names no place in a bucket`},
		{"address, up", "s3://box/../x", [2]string{}, false, name, `"s3://box/../x" names no place in a bucket`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.set[0] != "" {
				t.Setenv(c.set[0], c.set[1])
			}
			g.line.alter.Store(c.alter)
			_, err := g.put(t, context.Background(), c.dest, c.file, t.TempDir(), 5<<20)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, not %s", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "verysecret") || strings.Contains(err.Error(), "AKID")) {
				t.Errorf("a secret: %v", err)
			}
		})
	}
	t.Run("region", func(t *testing.T) {
		t.Setenv("AWS_REGION", "")
		t.Setenv("AWS_ENDPOINT_URL_S3", "")
		if _, err := OpenS3(context.Background(), "s3://box", ""); err == nil || err.Error() != "no AWS region is set; set AWS_REGION to the bucket's, as in eu-central-1" {
			t.Error(err)
		}
	})
}
