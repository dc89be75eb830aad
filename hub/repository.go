package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Repository is a model's repository of the hub that files are uploaded to. One goroutine at a time may use it.
//
// Large files go to the hub's storage at once, in parts where the hub wants it so; the parts that a killed upload has sent are
// taken as sent by the next one. Nothing is seen before Commit makes one commit of all that was put. What the repository has
// besides stays as it is.
type Repository struct {
	c       *Client
	repo    Repo
	state   string          // folder
	head    string          // the newest commit that was seen
	there   map[string]File // its files
	changes []change        // what the next commit brings
}

// change is a file that differs from the repository's, or that it lacks.
type change struct {
	name, path string
	identity
	large bool // its content is in the storage
}

// identity tells a content from all others.
type identity struct {
	size   int64  // bytes
	sha256 string // in hexadecimal
	sha1   string // as git computes it, "" for a file that is too large to be kept by git itself
}

// is tells whether the hub's file has the same content.
func (d identity) is(f File) bool {
	return f.Size == d.size && (f.Digest == d.sha256 || f.Digest == d.sha1)
}

// mostRegular is the size in bytes from which on a file is never kept by git itself.
const mostRegular = 16 << 20

// OpenRepository is the repository that an address such as "hf://org/name" names, which is made where it is missing: private,
// unless public is set. One that is there must be as private as is asked for. What an unfinished upload needs to go on is kept
// in state.
func OpenRepository(ctx context.Context, dest, state string, c *Client, public bool) (*Repository, error) {
	name, ok := strings.CutPrefix(dest, "hf://")
	repo, err := Repo{Model, strings.TrimSuffix(name, "/"), ""}.check()
	if !ok || err != nil || !strings.Contains(repo.Name, "/") {
		return nil, fmt.Errorf("%q names no repository of the hub; write it as in hf://org/name", dest)
	}
	r := &Repository{c: c, repo: repo, state: state}
	if err := r.open(ctx, public); err != nil {
		return nil, fmt.Errorf("open %s: %w", r, ended(ctx, err))
	}
	return r, nil
}

// String is the address.
func (r *Repository) String() string { return "hf://" + r.repo.Name }

// Page is the address of the repository's page for people, as in "https://huggingface.co/org/name".
func (r *Repository) Page() string { return r.c.Endpoint + r.repo.page() }

func (r *Repository) open(ctx context.Context, public bool) error {
	if r.c.Offline {
		return errors.New("HF_HUB_OFFLINE is set; unset it and run again")
	}
	token, err := r.c.token()
	if err != nil {
		return err
	}
	if token == "" {
		return fmt.Errorf("uploads need a token; make one with write access at %s/settings/tokens and set HF_TOKEN to it", r.c.Endpoint)
	}
	refused := r.create(ctx, public)
	private, err := r.read(ctx)
	switch {
	case refused != nil && err != nil && !errors.As(err, new(temporary)):
		return refused // it is not there, and why it cannot be made says more
	case err != nil:
		return err
	case private == nil || *private != public:
		return nil
	case public:
		return fmt.Errorf("it is there already, and private; make it public at %s/settings, or upload without --public (upload.public = false in config.toml)", r.Page())
	default:
		return fmt.Errorf("it is there already, and public; make it private at %s/settings, or upload with --public (upload.public = true in config.toml)", r.Page())
	}
}

var errThere = errors.New("the repository is there")

// create makes the repository, unless it is there.
func (r *Repository) create(ctx context.Context, public bool) error {
	at, err := r.at("/api/repos/create")
	if err != nil {
		return err
	}
	owner, name, _ := strings.Cut(r.repo.Name, "/")
	wanted := map[string]any{"type": "model", "organization": owner, "name": name, "private": !public}
	err = r.c.post(ctx, at, jsonType, wanted, nil, func(resp *http.Response) error {
		switch resp.StatusCode {
		case http.StatusConflict:
			return errThere
		case http.StatusBadRequest, http.StatusUnprocessableEntity:
			return errors.New("the hub takes no repository of that name; choose another")
		}
		return r.refusal(resp)
	})
	if errors.Is(err, errThere) {
		return nil
	}
	return err
}

// read asks what the repository holds, and whether it is private: nil where the hub does not say.
func (r *Repository) read(ctx context.Context) (private *bool, err error) {
	tip, err := r.c.tip(ctx, r.repo)
	if err != nil {
		return nil, err
	}
	l, err := r.c.tree(ctx, r.repo, tip.SHA)
	if err != nil {
		return nil, err
	}
	r.head, r.there = l.Commit, map[string]File{}
	for _, f := range l.Files {
		r.there[f.Name] = f
	}
	return tip.Private, nil
}

// at is an address of the hub.
func (r *Repository) at(path string) (*url.URL, error) {
	home, err := r.c.endpoint()
	if err != nil {
		return nil, err
	}
	return home.JoinPath(path), nil
}

// Put sends the file at path under name, unless a file with the same content is there already; a small one is sent by Commit.
// add is told the bytes that are there now, less those that were lost; several goroutines call it.
func (r *Repository) Put(ctx context.Context, name, path string, add func(bytes int64)) error {
	return uploaded(ctx, name, r, r.put(ctx, name, path, add))
}

// Close does nothing: what an unfinished upload has sent stays there for the next one.
func (*Repository) Close() error { return nil }

func (r *Repository) put(ctx context.Context, name, path string, add func(int64)) error {
	if err := checkPath(name); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, obstacle(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, obstacle(err))
	}
	d, err := identify(ctx, f, info.Size())
	if err != nil {
		return fmt.Errorf("read %s: %w", path, obstacle(err))
	}
	if known, ok := r.there[name]; ok && d.is(known) {
		add(d.size)
		return nil
	}
	large, err := r.preupload(ctx, name, f, d.size)
	if err != nil {
		return err
	}
	if !large {
		add(d.size)
	} else if err := r.store(ctx, f, d, add); err != nil {
		return err
	}
	r.changes = append(r.changes, change{name, path, d, large})
	return nil
}

// identify reads a file of a size.
func identify(ctx context.Context, f io.Reader, size int64) (identity, error) {
	whole, git := sha256.New(), hash.Hash(nil)
	into := io.Writer(whole)
	if size <= mostRegular {
		git = sha1.New()
		fmt.Fprintf(git, "blob %d\x00", size)
		into = io.MultiWriter(whole, git)
	}
	n, err := io.CopyBuffer(into, untilDone{ctx, f}, make([]byte, 256<<10))
	if err == nil && n != size {
		err = errors.New("it changed while it was read")
	}
	d := identity{size: size, sha256: hex.EncodeToString(whole.Sum(nil))}
	if git != nil {
		d.sha1 = hex.EncodeToString(git.Sum(nil))
	}
	return d, err
}

// preupload asks the hub whether a file goes to the storage.
func (r *Repository) preupload(ctx context.Context, name string, f io.ReaderAt, size int64) (large bool, err error) {
	sample := make([]byte, min(size, 512))
	if _, err := f.ReadAt(sample, 0); err != nil {
		return false, fmt.Errorf("read %s: %w", name, obstacle(err))
	}
	at, err := r.at(r.repo.api() + "/preupload/" + r.repo.Revision)
	if err != nil {
		return false, err
	}
	question := map[string]any{"files": []any{map[string]any{"path": name, "sample": base64.StdEncoding.EncodeToString(sample), "size": size}}}
	var answer struct {
		Files []struct {
			Path, UploadMode string
			ShouldIgnore     bool
		}
	}
	if err := r.c.post(ctx, at, jsonType, question, &answer, r.refusal); err != nil {
		return false, err
	}
	if len(answer.Files) != 1 || answer.Files[0].Path != name {
		return false, r.confused(at)
	}
	switch told := answer.Files[0]; {
	case told.ShouldIgnore:
		return false, fmt.Errorf("the repository's .gitignore keeps it out; change that at %s/blob/%s/.gitignore", r.Page(), r.repo.Revision)
	case size == 0:
		return false, nil // the storage takes no empty files
	case told.UploadMode == "lfs":
		return true, nil
	case told.UploadMode == "regular" && size <= mostRegular:
		return false, nil
	}
	return false, r.confused(at)
}

// confused is an answer that makes no sense.
func (r *Repository) confused(at *url.URL) error {
	return fmt.Errorf("%s answered something that is no answer of a hub; check HF_ENDPOINT and the proxy", at.Host)
}

// refusal words an answer that is no success. Nothing of what the hub says comes into it.
func (r *Repository) refusal(resp *http.Response) error {
	if err := r.c.passing(resp); err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("the hub does not take the token; make one with write access at %s/settings/tokens and set HF_TOKEN to it", r.c.Endpoint)
	case http.StatusPaymentRequired, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage:
		return r.denied(resp.StatusCode, resp.Header.Get("X-Error-Message"))
	case http.StatusNotFound:
		return errors.New("there is no such repository, or the token may not see it; check the name and HF_TOKEN")
	}
	return noHub(resp)
}

// denied words a refusal for what the token or its owner may not do. Of what the hub says only known words count.
func (r *Repository) denied(code int, message string) error {
	message = strings.ToLower(message)
	switch {
	case code == http.StatusRequestEntityTooLarge:
		return errors.New("the file is larger than the hub takes; split it into shards")
	case code == http.StatusPaymentRequired, code == http.StatusInsufficientStorage, strings.Contains(message, "storage"), strings.Contains(message, "quota"):
		owner, _, _ := strings.Cut(r.repo.Name, "/")
		return fmt.Errorf("the storage of %s is full; free some, or get more at %s/settings/billing, and run again to go on from here", owner, r.c.Endpoint)
	}
	return fmt.Errorf("the token may not write there; make one with write access at %s/settings/tokens and set HF_TOKEN to it", r.c.Endpoint)
}
