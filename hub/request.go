package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

// temporary is a failure that may pass.
type temporary struct {
	error
	after  time.Duration // how long the server asks to wait, 0 where it says nothing
	atOnce bool          // no wait is needed
}

func (t temporary) Unwrap() error { return t.error }

// longestWait is the most that a server is waited for at once; the hub's limits pass within five minutes.
const longestWait = 10 * time.Minute

// persist tries until it works, fails for good, or has failed too often in a row. gained tells that a try brought the work
// forward although it failed.
func (c *Client) persist(ctx context.Context, try func() (gained bool, err error)) error {
	for failed := 0; ; {
		gained, err := try()
		var t temporary
		if err == nil || ctx.Err() != nil || !errors.As(err, &t) {
			return err
		}
		if gained {
			failed = 0
		}
		failed++
		if failed >= c.attempts {
			return fmt.Errorf("%w; %d tries failed, run again to go on from here", err, failed)
		}
		pause := t.after
		switch {
		case t.atOnce:
			continue
		case pause > longestWait:
			return fmt.Errorf("%w; the server asks to wait %s, so run again then", err, pause.Round(time.Second))
		case pause == 0:
			pause = min(500*time.Millisecond<<(failed-1), 30*time.Second)
			pause += time.Duration(rand.Int64N(int64(pause)/4 + 1))
		}
		if err := c.wait(ctx, pause); err != nil {
			return err
		}
	}
}

// request is one request to a server.
type request struct {
	method string
	to     *url.URL
	header http.Header
	body   func() (io.ReadCloser, error) // what is sent along, from its beginning; nil for nothing
	size   int64                         // bytes of body
	long   bool                          // the server may think about it for long
	stay   bool                          // a redirect to another host is returned rather than followed
}

// send makes a request and follows redirects. The token goes to the hub alone.
func (c *Client) send(ctx context.Context, q request) (*http.Response, error) {
	home, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	const redirects = 5
	for range redirects {
		req, err := http.NewRequestWithContext(ctx, q.method, q.to.String(), nil)
		if err != nil {
			return nil, errors.New("the server sent an address that is none")
		}
		for name, values := range q.header {
			req.Header[name] = values
		}
		req.Header.Set("User-Agent", "quartet")
		req.Header.Set("Accept-Encoding", "identity")
		if token != "" && sameHost(q.to, home) {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if q.body != nil {
			if req.Body, err = q.body(); err != nil {
				return nil, err
			}
			req.ContentLength, req.GetBody = q.size, q.body
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, c.broken(ctx, q.to, err)
		}
		code := resp.StatusCode
		if code < 300 || code > 399 {
			return resp, nil
		}
		next, err := resp.Location()
		if err != nil || next.Scheme != "http" && next.Scheme != "https" {
			resp.Body.Close()
			return nil, fmt.Errorf("%s sent a redirect to nowhere", q.to.Host)
		}
		if q.stay && !sameHost(next, home) {
			return resp, nil
		}
		resp.Body.Close()
		if q.body != nil && code != http.StatusTemporaryRedirect && code != http.StatusPermanentRedirect {
			return nil, fmt.Errorf("%s answered %d to what was sent; check HF_ENDPOINT and the proxy", q.to.Host, code)
		}
		q.to = next
	}
	return nil, fmt.Errorf("%s redirects without end", q.to.Host)
}

func sameHost(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

// broken words a failed connection. It leaves out the address, whose query may be a key.
func (c *Client) broken(ctx context.Context, to *url.URL, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if quiet := (silent{}); errors.As(err, &quiet) {
		return temporary{error: quiet}
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("connect to %s: %w; install the certificate of your proxy or set HF_ENDPOINT", to.Host, untrusted)
	}
	return temporary{error: fmt.Errorf("connect to %s: %w", to.Host, err)}
}

// refusal words an answer that is no success. About is the file it is about, "" for the repository.
func (c *Client) refusal(r Repo, about string, resp *http.Response) error {
	page := c.Endpoint + r.page()
	token, _ := c.token()
	problem := resp.Header.Get("X-Error-Code")
	if err := c.passing(resp); err != nil {
		return err
	}
	switch code := resp.StatusCode; {
	case problem == "GatedRepo" && token == "":
		return fmt.Errorf("its licence must be accepted first; do that at %s and set HF_TOKEN to a token of that account", page)
	case problem == "GatedRepo":
		return fmt.Errorf("its licence must be accepted first; do that at %s with the account that HF_TOKEN is of", page)
	case code == http.StatusUnauthorized && token == "":
		return errors.New("it is private or does not exist; check its name, or set HF_TOKEN to a token that may read it")
	case code == http.StatusUnauthorized:
		return fmt.Errorf("the hub does not take the token, or there is no such %s; check the name, and make a new token at %s/settings/tokens", r.Kind, c.Endpoint)
	case code == http.StatusForbidden:
		return fmt.Errorf("the token may not read it; give it that right at %s/settings/tokens, or ask the owner for access at %s", c.Endpoint, page)
	case code == http.StatusNotFound && problem == "RevisionNotFound":
		return fmt.Errorf("it has no revision %s; see %s/commits for those it has", r.Revision, page)
	case code == http.StatusNotFound && (problem == "EntryNotFound" || about != ""):
		return errors.New("the hub does not have the file any more; run again")
	case code == http.StatusNotFound && token == "":
		return fmt.Errorf("there is no such %s; check its name, and if it is private set HF_TOKEN", r.Kind)
	case code == http.StatusNotFound:
		return fmt.Errorf("there is no such %s, or the token may not see it; check its name and HF_TOKEN", r.Kind)
	default:
		return noHub(resp)
	}
}

func noHub(resp *http.Response) error {
	return fmt.Errorf("%s answered %d, which is no answer of a hub; check HF_ENDPOINT and the proxy", resp.Request.URL.Host, resp.StatusCode)
}

// passing is the failure of an answer that asks to come back later, nil for all other answers.
func (c *Client) passing(resp *http.Response) error {
	code := resp.StatusCode
	if code != http.StatusRequestTimeout && code != http.StatusTooManyRequests && code < 500 {
		return nil
	}
	return temporary{error: fmt.Errorf("%s answered %d", resp.Request.URL.Host, code), after: c.retryAfter(resp.Header)}
}

var resets = regexp.MustCompile(`;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})`)

// retryAfter is how long a server asks to wait, 0 where it does not say.
func (c *Client) retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if m := resets.FindStringSubmatch(h.Get("RateLimit")); m != nil && text == "" {
		text = m[1]
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < 1e9 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(c.now()), 0)
	}
	return 0
}

// call gets a JSON value from the hub, and the address of its next page, nil on the last.
func (c *Client) call(ctx context.Context, r Repo, at *url.URL, into any) (next *url.URL, err error) {
	return c.exchange(ctx, request{method: http.MethodGet, to: at}, into, func(resp *http.Response) error { return c.refusal(r, "", resp) })
}

// The media types of questions and answers.
const (
	jsonType = "application/json"
	lfsType  = "application/vnd.git-lfs+json"
)

// post sends a JSON value of a media type and reads the JSON value of the answer, if into is not nil.
func (c *Client) post(ctx context.Context, at *url.URL, media string, value, into any, refusal func(*http.Response) error) error {
	q, err := posting(at, media, value)
	if err != nil {
		return err
	}
	_, err = c.exchange(ctx, q, into, refusal)
	return err
}

// settle is post for what a server may take long to do, as to put the parts of a file together; nothing of its answer is read.
func (c *Client) settle(ctx context.Context, at *url.URL, media string, value any, refusal func(*http.Response) error) error {
	q, err := posting(at, media, value)
	if err != nil {
		return err
	}
	q.long = true
	_, err = c.exchange(ctx, q, nil, refusal)
	return err
}

func posting(at *url.URL, media string, value any) (request, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return request{}, err
	}
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	header := http.Header{"Content-Type": {media}, "Accept": {media}}
	return request{method: http.MethodPost, to: at, header: header, body: body, size: int64(len(data))}, nil
}

// exchange makes a request that is answered with a JSON value, read if into is not nil, and maybe with the address of its next
// page. refusal words an answer that is no success.
func (c *Client) exchange(ctx context.Context, q request, into any, refusal func(*http.Response) error) (next *url.URL, err error) {
	const slowest = 16 << 10 // bytes in a second
	limit := c.stall + time.Duration(q.size/slowest)*time.Second
	if q.long {
		limit += longestThinking
	}
	err = c.persist(ctx, func() (bool, error) {
		ctx, stop := context.WithTimeoutCause(ctx, limit, temporary{error: fmt.Errorf("%s did not answer for %s", q.to.Host, limit)})
		defer stop()
		resp, err := c.send(ctx, q)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
			return false, refusal(resp)
		}
		if into == nil {
			return false, nil
		}
		const most = 8 << 20
		data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
		switch {
		case err != nil:
			return false, c.broken(ctx, q.to, err)
		case len(data) > most:
			return false, fmt.Errorf("%s answered more than %d MB to a question", q.to.Host, most>>20)
		case json.Unmarshal(data, into) != nil:
			return false, fmt.Errorf("%s answered something that is no JSON of a hub; check HF_ENDPOINT and the proxy", q.to.Host)
		}
		next = nextPage(resp)
		return false, nil
	})
	return next, err
}

var nextLink = regexp.MustCompile(`<([^>]+)>\s*;\s*rel="?next"?`)

func nextPage(resp *http.Response) *url.URL {
	m := nextLink.FindStringSubmatch(resp.Header.Get("Link"))
	if m == nil {
		return nil
	}
	u, err := resp.Request.URL.Parse(m[1])
	if err != nil {
		return nil
	}
	return u
}
