package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// deaf accepts connections and reads nothing.
func deaf(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		var held []net.Conn // so that none is closed as garbage
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range held {
					c.Close()
				}
				return
			}
			held = append(held, c)
		}
	}()
	return l.Addr().String()
}

func watching(silence, thinking time.Duration) *http.Client {
	return &http.Client{Transport: watch{http.DefaultTransport.(*http.Transport).Clone(), silence, thinking}}
}

// impatient makes a client wait no longer than d for bytes, and no longer than a test lasts for an answer that takes thinking.
func impatient(c *Client, d time.Duration) {
	c.http.Transport = watch{c.http.Transport.(watch).RoundTripper, d, time.Minute}
}

// TestSilenceEnds has servers that take nothing, with a body that fills the connection and without one.
func TestSilenceEnds(t *testing.T) {
	at := deaf(t)
	for size, did := range map[int]string{0: "sent", 32 << 20: "took"} {
		_, err := watching(100*time.Millisecond, 100*time.Millisecond).Post("http://"+at, "", bytes.NewReader(make([]byte, size)))
		if want := (silent{at, did, 100 * time.Millisecond}); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, not %v", size, err, want)
		}
	}
}

// TestThinkingMayTakeLonger has a server that takes all and answers late.
func TestThinkingMayTakeLonger(t *testing.T) {
	const silence = 200 * time.Millisecond
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(3 * silence):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, n)
	}))
	t.Cleanup(s.Close)
	resp, err := watching(silence, time.Minute).Post(s.URL, "", bytes.NewReader(make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "1048576" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestThinkingEnds has a server that takes all and never answers.
func TestThinkingEnds(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	_, err := watching(time.Minute, 200*time.Millisecond).Post(s.URL, "", strings.NewReader("all"))
	if want := (silent{s.Listener.Addr().String(), "sent", 200 * time.Millisecond}); !errors.Is(err, want) {
		t.Errorf("%v, not %v", err, want)
	}
}

// TestSilentAnswerEnds has a server that stops in its answer.
func TestSilentAnswerEnds(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	resp, err := watching(100*time.Millisecond, time.Minute).Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := silent{s.Listener.Addr().String(), "sent", 100 * time.Millisecond}
	if text, err := io.ReadAll(resp.Body); !errors.Is(err, want) || string(text) != "half" {
		t.Errorf("%q, %v, not %v", text, err, want)
	}
}

// TestContentSentAgainIsWatched has a server that closes a connection after its answer, so that the next request's content is sent twice,
// the second time more slowly than silence would let pass.
func TestContentSentAgainIsWatched(t *testing.T) {
	const silence = 200 * time.Millisecond
	var bodies int
	r, err := http.NewRequest(http.MethodPut, "http://nowhere", slow{bytes.NewReader(make([]byte, 8)), silence / 2})
	if err != nil {
		t.Fatal(err)
	}
	r.GetBody = func() (io.ReadCloser, error) {
		bodies++
		return io.NopCloser(slow{bytes.NewReader(make([]byte, 8)), silence / 2}), nil
	}
	again := func(r *http.Request) (*http.Response, error) { // as http.Transport does for a connection that turns out to be closed
		if r.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
		_, err := io.Copy(io.Discard, r.Body)
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, errors.Join(err, r.Context().Err())
	}
	resp, err := watch{trip(again), silence, time.Minute}.RoundTrip(r)
	if err != nil || bodies != 1 {
		t.Fatalf("%d bodies: %v", bodies, err)
	}
	resp.Body.Close()
}

type trip func(*http.Request) (*http.Response, error)

func (t trip) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// slow waits before each byte.
type slow struct {
	io.Reader
	pause time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Reader.Read(p[:1])
}

func TestS3Silence(t *testing.T) {
	at := deaf(t)
	s3Settings(t, "http://"+at)
	s, err := openS3(t.Context(), "s3://box/run", t.TempDir(), 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "weights.bin")
	if err := os.WriteFile(name, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.Put(t.Context(), "weights.bin", name, func(int64) {})
	if want := "upload weights.bin to s3://box/run: " + at + " sent nothing for 100ms; run again"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, not %s", err, want)
	}
}

// diverted is a transport whose PUTs go to another address.
type diverted struct {
	http.RoundTripper
	to   string
	puts *atomic.Int32
}

func (d diverted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut {
		d.puts.Add(1)
		r = r.Clone(r.Context())
		r.URL.Host = d.to
	}
	return d.RoundTripper.RoundTrip(r)
}

func TestDriveSilence(t *testing.T) {
	s := newDriveServer(t)
	d := s.drive(t.TempDir(), nil, nil)
	var puts atomic.Int32
	d.calls.http.Transport = watch{diverted{http.DefaultTransport.(*http.Transport).Clone(), deaf(t), &puts}, 50 * time.Millisecond, 50 * time.Millisecond}
	name, _ := randomFile(t, 12, 8<<20)
	var there atomic.Int64
	err := d.Put(t.Context(), driveName, name, func(n int64) { there.Add(n) })
	want := "upload sub/it's.bin to gdrive://box/in: " + s.Listener.Addr().String() + " sent nothing for 50ms; 6 tries failed, run again to go on from here"
	if err == nil || err.Error() != want || puts.Load() != 6 || there.Load() != 0 {
		t.Errorf("%v after %d PUTs with %d bytes there, not %s", err, puts.Load(), there.Load(), want)
	}
}

func TestRepositorySilence(t *testing.T) {
	s := newRepository(t)
	c := s.uploader(nil)
	var puts atomic.Int32
	c.http.Transport = watch{diverted{c.http.Transport.(watch).RoundTripper, deaf(t), &puts}, 50 * time.Millisecond, 50 * time.Millisecond}
	_, err := upload(t.Context(), c, folder(t, newModel()), t.TempDir())
	want := " nothing for 50ms; 6 tries failed, run again to go on from here" // whether the last bytes wait here or in the connection is chance
	if err == nil || !strings.HasPrefix(err.Error(), "upload adapter.safetensors to hf://org/new: ") || !strings.HasSuffix(err.Error(), want) || puts.Load() != 6 || len(s.commits) > 0 {
		t.Errorf("%v after %d PUTs, not %s", err, puts.Load(), want)
	}
}
