// Package hub brings models and datasets of the Hugging Face Hub to this machine, and uploads folders to it and to other places.
//
// What it downloads lies in the cache that Python's huggingface_hub uses too, in the same layout and under the same locks,
// so that neither fetches what the other has. Files come in parallel parts; how far each part has come is on disk, and a
// download that was cut off anywhere goes on from there. A file gets its name in the cache only when its digest is the one
// that the hub told.
package hub

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Kind is what a repository holds.
type Kind string

// The kinds of repositories.
const (
	Model   Kind = "model"
	Dataset Kind = "dataset"
)

// Repo is a repository of the hub at a revision.
type Repo struct {
	Kind     Kind
	Name     string // "owner/name"
	Revision string // a branch, tag or commit; "" for the branch main
}

// File is one file of a repository.
type File struct {
	Name   string // its path in the repository, with slashes
	Size   int64  // bytes
	Digest string // in hexadecimal: SHA-256 of a large file, git's SHA-1 of a small one
}

// Client talks to one hub. It is safe for concurrent use.
type Client struct {
	Settings
	http     *http.Client
	workers  int           // parts of a file fetched at once
	part     int64         // bytes of a part
	attempts int           // tries in a row that may fail without a byte gained
	stall    time.Duration // the longest wait for a short answer
	wait     func(ctx context.Context, d time.Duration) error
	now      func() time.Time
}

// New is a client with the given settings. It does nothing yet.
func New(s Settings) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true) // parts on one HTTP/2 connection would share its window
	transport.DisableCompression = true
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.MaxIdleConnsPerHost = 16
	return &Client{
		Settings: s,
		http: &http.Client{Transport: watch{transport, longestSilence, longestThinking}, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // send decides who gets the token
		}},
		workers: 8, part: 16 << 20, attempts: 6, stall: longestSilence, wait: sleep, now: time.Now,
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

var (
	repoName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,95})?$`)
	revisionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]{0,199}$`)
	commitName   = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// check fills in the branch and refuses what cannot be a repository.
func (r Repo) check() (Repo, error) {
	if !repoName.MatchString(r.Name) || strings.Contains(r.Name, "..") || strings.Contains(r.Name, "--") {
		return r, fmt.Errorf("no repository can be called %q; give its id as on the hub, as in microsoft/phi-2", r.Name)
	}
	if r.Revision == "" {
		r.Revision = "main"
	}
	if !revisionName.MatchString(r.Revision) || checkPath(r.Revision) != nil {
		return r, fmt.Errorf("no revision can be called %q; give a branch, tag or commit of %s", r.Revision, r.Name)
	}
	return r, nil
}

// page is the repository's path on the hub, for people and for files.
func (r Repo) page() string {
	if r.Kind == Dataset {
		return "/datasets/" + r.Name
	}
	return "/" + r.Name
}

// api is the repository's path among the hub's calls.
func (r Repo) api() string { return "/api/" + string(r.Kind) + "s/" + r.Name }

// folder is the repository's folder in the cache, and among the cache's locks.
func (r Repo) folder() string {
	return string(r.Kind) + "s--" + strings.ReplaceAll(r.Name, "/", "--")
}

// again is the command that downloads the repository, for messages.
func (r Repo) again() string {
	line := "quartet download " + r.Name
	if r.Kind == Dataset {
		line += " --dataset"
	}
	if r.Revision != "main" {
		line += " --revision " + r.Revision
	}
	return "`" + line + "`"
}
