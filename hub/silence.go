package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	most time.Duration
}

func (s silent) Error() string   { return fmt.Sprintf("%s took nothing for %s", s.host, s.most) }
func (s silent) Timeout() bool   { return true }
func (s silent) Temporary() bool { return true }

func (w watch) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, stop := context.WithCancelCause(r.Context())
	quiet := silent{r.URL.Host, w.silence}
	timer := time.AfterFunc(w.silence, func() { stop(quiet) })
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = alive{r.Body, func(err error) {
			if err != nil {
				timer.Reset(w.thinking)
			} else {
				timer.Reset(w.silence)
			}
		}}
	}
	resp, err := w.RoundTripper.RoundTrip(r)
	if err != nil {
		timer.Stop()
		if errors.Is(context.Cause(ctx), quiet) {
			err = quiet
		}
		stop(nil)
		return nil, err
	}
	timer.Reset(w.silence)
	resp.Body = ending{alive{resp.Body, func(error) { timer.Reset(w.silence) }}, func() { timer.Stop(); stop(nil) }}
	return resp, nil
}

// alive tells of each read how it went.
type alive struct {
	io.ReadCloser
	told func(error)
}

func (a alive) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.told(err)
	return n, err
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
