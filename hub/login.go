package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// login gets the user's leave at Google: the device flow of RFC 8628, which needs no browser on this machine.
type login struct {
	id, secret string
	address    string // of the authorisation server
	file       string // where the token is kept
	show       func(address, code string)
	calls      *Client
	kept       token
}

// token is what the file holds.
type token struct {
	Access  string    `json:"access_token"`
	Refresh string    `json:"refresh_token"`
	Until   time.Time `json:"until"`
}

// granted is an answer of the authorisation server.
type granted struct {
	Access   string `json:"access_token"`
	Refresh  string `json:"refresh_token"`
	Expires  int64  `json:"expires_in"` // seconds
	Error    string `json:"error"`
	Device   string `json:"device_code"`
	Code     string `json:"user_code"`
	Address  string `json:"verification_url"`
	Interval int64  `json:"interval"` // seconds
}

// token is one that is good now. With renew, the present one is known to be no good.
func (l *login) token(ctx context.Context, renew bool) (string, error) {
	if l.kept.Refresh == "" {
		if data, err := os.ReadFile(l.file); err == nil {
			_ = json.Unmarshal(data, &l.kept) // without a token in it, the user signs in anew
		}
	}
	if l.kept.Access != "" && !renew && l.calls.now().Before(l.kept.Until) {
		return l.kept.Access, nil
	}
	if l.kept.Refresh == "" {
		return l.ask(ctx)
	}
	g, err := l.post(ctx, "/token", url.Values{"client_secret": {l.secret}, "grant_type": {"refresh_token"}, "refresh_token": {l.kept.Refresh}})
	switch {
	case err != nil:
		return "", err
	case g.Error == "invalid_grant": // withdrawn, or not used for months
		l.kept = token{}
		return l.ask(ctx)
	}
	return l.keep(g)
}

var userCode = regexp.MustCompile(`^[A-Za-z0-9-]{4,40}$`)

// ask shows the user a code and waits for the leave.
func (l *login) ask(ctx context.Context) (string, error) {
	if l.show == nil {
		return "", errors.New("nobody has let the program into Google Drive yet; `quartet upload` to a gdrive:// address asks for that, once")
	}
	g, err := l.post(ctx, "/device/code", url.Values{"scope": {"https://www.googleapis.com/auth/drive.file"}})
	if err != nil {
		return "", err
	}
	page, err := url.Parse(g.Address)
	if g.Error != "" || err != nil || page.Scheme != "https" || !userCode.MatchString(g.Code) || g.Device == "" {
		return "", l.refused(g)
	}
	l.show(page.String(), g.Code)
	interval := time.Duration(min(max(g.Interval, 1), 60)) * time.Second
	for end := l.calls.now().Add(time.Duration(min(max(g.Expires, 60), 3600)) * time.Second); l.calls.now().Before(end); {
		if err := l.calls.wait(ctx, interval); err != nil {
			return "", err
		}
		got, err := l.post(ctx, "/token", url.Values{"client_secret": {l.secret}, "device_code": {g.Device}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}})
		switch {
		case err != nil:
			return "", err
		case got.Error == "slow_down":
			interval += 5 * time.Second
		case got.Error != "authorization_pending":
			return l.keep(got)
		}
	}
	return "", l.refused(granted{Error: "expired_token"})
}

// refused words an answer without a token.
func (l *login) refused(g granted) error {
	switch g.Error {
	case "access_denied":
		return errors.New("the access to Google Drive was denied; run again and allow it")
	case "expired_token":
		return errors.New("the code was not entered in time; run again for another one")
	case "invalid_client", "unauthorized_client":
		return errors.New("the OAuth client is not taken by Google; check QUARTET_DRIVE_CLIENT_ID and QUARTET_DRIVE_CLIENT_SECRET, of the kind \"TVs and limited input devices\"")
	}
	return errors.New("signing in at Google failed; check QUARTET_DRIVE_CLIENT_ID, QUARTET_DRIVE_CLIENT_SECRET and the proxy")
}

// keep writes the token down for the user alone.
func (l *login) keep(g granted) (string, error) {
	if g.Access == "" || g.Error != "" || strings.ContainsFunc(g.Access, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", l.refused(g)
	}
	if g.Refresh != "" {
		l.kept.Refresh = g.Refresh
	}
	const early = time.Minute
	l.kept.Access, l.kept.Until = g.Access, l.calls.now().Add(time.Duration(min(g.Expires, 86400))*time.Second-early)
	data, err := json.Marshal(l.kept)
	if err != nil {
		return "", err
	}
	if err := writeSecret(l.file, data); err != nil {
		return "", fmt.Errorf("write %s: %w", l.file, obstacle(err))
	}
	return g.Access, nil
}

// writeSecret puts a file in place that only the user can read, at no moment half of it.
func writeSecret(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".secret-*") // readable by the user alone
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// post asks the authorisation server. A refusal is an answer with Error.
func (l *login) post(ctx context.Context, call string, form url.Values) (g granted, err error) {
	form.Set("client_id", l.id)
	err = l.calls.persist(ctx, func() (bool, error) {
		ctx, stop := context.WithTimeoutCause(ctx, l.calls.stall, temporary{error: errors.New("the server is silent")})
		defer stop()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.address+call, strings.NewReader(form.Encode()))
		if err != nil {
			return false, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := l.calls.http.Do(req)
		if err != nil {
			return false, l.calls.broken(ctx, req.URL, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 500 {
			return false, temporary{error: fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode), after: l.calls.retryAfter(resp.Header)}
		}
		g = granted{}
		return false, readJSON(resp.Body, &g)
	})
	return g, err
}
