package hub

import (
	"context"
	"fmt"
	"net/url"
)

// Listing is the files of a repository at one commit.
type Listing struct {
	Commit string // 40 hexadecimal digits
	Files  []File
}

const (
	mostFiles   = 100_000 // bounds what a listing takes in memory
	largestFile = 1 << 50 // bytes, beyond what any hub holds
)

// List asks the hub which files a repository has. A name that would leave the folder it is put into is an error.
func (c *Client) List(ctx context.Context, r Repo) (Listing, error) {
	r, err := r.check()
	if err != nil {
		return Listing{}, err
	}
	l, err := c.list(ctx, r)
	if err != nil {
		return Listing{}, fmt.Errorf("list %s: %w", r.Name, err)
	}
	return l, nil
}

func (c *Client) list(ctx context.Context, r Repo) (Listing, error) {
	tip, err := c.tip(ctx, r)
	if err != nil {
		return Listing{}, err
	}
	return c.tree(ctx, r, tip.SHA)
}

// tip is a revision as the hub describes it.
type tip struct {
	SHA     string // the commit
	Private *bool  // nil where the hub does not say
}

func (c *Client) tip(ctx context.Context, r Repo) (t tip, err error) {
	home, err := c.endpoint()
	if err != nil {
		return t, err
	}
	if _, err := c.call(ctx, r, home.JoinPath(r.api(), "revision", url.PathEscape(r.Revision)), &t); err != nil {
		return t, err
	}
	if !commitName.MatchString(t.SHA) {
		return t, fmt.Errorf("%s names no commit; check HF_ENDPOINT and the proxy", home.Host)
	}
	return t, nil
}

// tree is the files of a commit.
func (c *Client) tree(ctx context.Context, r Repo, commit string) (Listing, error) {
	home, err := c.endpoint()
	if err != nil {
		return Listing{}, err
	}
	l := Listing{Commit: commit}
	at := home.JoinPath(r.api(), "tree", commit)
	at.RawQuery = "recursive=true"
	seen := map[string]bool{}
	for at != nil {
		if seen[at.String()] {
			return Listing{}, fmt.Errorf("%s lists the same page again and again", home.Host)
		}
		seen[at.String()] = true
		var page []struct {
			Type, Path, OID string
			Size            int64
			LFS             *struct {
				OID  string
				Size int64
			}
		}
		if at, err = c.call(ctx, r, at, &page); err != nil {
			return Listing{}, err
		}
		for _, e := range page {
			f := File{e.Path, e.Size, e.OID}
			if e.LFS != nil {
				f.Size, f.Digest = e.LFS.Size, e.LFS.OID
			}
			if err := checkPath(f.Name); err != nil {
				return Listing{}, fmt.Errorf("the hub lists %q, but %w; don't use this %s", f.Name, err, r.Kind)
			}
			if e.Type != "file" {
				continue
			}
			if f.Size < 0 || f.Size > largestFile || !digestName.MatchString(f.Digest) {
				return Listing{}, fmt.Errorf("the hub lists %q without a size or digest that can be; check HF_ENDPOINT and the proxy", f.Name)
			}
			l.Files = append(l.Files, f)
		}
		if len(l.Files) > mostFiles {
			return Listing{}, fmt.Errorf("it has more than %d files", mostFiles)
		}
	}
	return l, nil
}
