package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// watch is a transport that ends a request whose server takes nothing and sends nothing for some time. A server that has
// all of a request may think about it for much longer: some put the parts of an upload together before they answer.
type watch struct {
	http.RoundTripper
	silence, thinking time.Duration
}

// watched by default.
const (
	longestSilence  = time.Minute
	longestThinking = 15 * time.Minute
)

// silent is the error of a request that was ended. It is one that passes, for those who try again.
type silent struct {
	host string
	did  string // "took" or "sent", what it did nothing of
	most time.Duration
}

func (s silent) Error() string   { return fmt.Sprintf("%s %s nothing for %s", s.host, s.did, s.most) }
func (s silent) Timeout() bool   { return true }
func (s silent) Temporary() bool { return true }

func (w watch) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, stop := context.WithCancelCause(r.Context())
	var waits atomic.Pointer[silent] // what has happened when the timer ends
	taking, thinking, answering := silent{r.URL.Host, "took", w.silence}, silent{r.URL.Host, "sent", w.thinking}, silent{r.URL.Host, "sent", w.silence}
	waits.Store(&answering)
	timer := time.AfterFunc(w.silence, func() { stop(*waits.Load()) })
	wait := func(s *silent) {
		waits.Store(s)
		timer.Reset(s.most)
	}
	// why is what ended the request: its server's silence, if that was it.
	why := func(err error) error {
		if quiet := (silent{}); err != nil && errors.As(context.Cause(ctx), &quiet) {
			return quiet
		}
		return err
	}
	sending := func(body io.ReadCloser) io.ReadCloser {
		return alive{body, func(err error) error {
			if err != nil {
				wait(&thinking)
			} else {
				wait(&taking)
			}
			return err
		}}
	}
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		wait(&taking)
		r.Body = sending(r.Body)
	}
	if again := r.GetBody; again != nil { // for a connection that the server closed after its last request
		r.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			if err != nil {
				return nil, err
			}
			return sending(body), nil
		}
	}
	resp, err := w.RoundTripper.RoundTrip(r)
	if err != nil {
		timer.Stop()
		err = why(err)
		stop(nil)
		return nil, err
	}
	wait(&answering)
	resp.Body = ending{alive{resp.Body, func(err error) error { wait(&answering); return why(err) }}, func() { timer.Stop(); stop(nil) }}
	return resp, nil
}

// alive tells of each read how it went, and is told what to call that.
type alive struct {
	io.ReadCloser
	told func(error) error
}

func (a alive) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	return n, a.told(err)
}

// ending calls end when it is closed.
type ending struct {
	io.ReadCloser
	end func()
}

func (e ending) Close() error {
	defer e.end()
	return e.ReadCloser.Close()
}
