package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The cache's layout is that of Python's huggingface_hub:
//
//	models--owner--name/blobs/ETAG                  contents
//	models--owner--name/snapshots/COMMIT/FILE       relative links to them
//	models--owner--name/refs/REVISION               the commit of a branch or tag
//	.locks/models--owner--name/ETAG.lock            held while that content is fetched
//
// Beside a blob that is not whole yet lie ETAG.content.incomplete and ETAG.parts.incomplete. No release of huggingface_hub
// uses these names: some append to ETAG.incomplete, which a file with holes must not be taken for.

func (c *Client) place(r Repo, parts ...string) string {
	return filepath.Join(append([]string{c.Cache, r.folder()}, parts...)...)
}

func (c *Client) blob(r Repo, etag string) string { return c.place(r, "blobs", etag) }

func (c *Client) snapshot(r Repo, commit string) string { return c.place(r, "snapshots", commit) }

// lock waits until no other process fetches the same content.
func (c *Client) lock(ctx context.Context, r Repo, etag string) (release func(), err error) {
	path := filepath.Join(c.Cache, ".locks", r.folder(), etag+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, fmt.Errorf("make folder %s: %w", filepath.Dir(path), inCache(err))
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o664)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, inCache(err))
		}
		taken := make(chan error, 1)
		go func() { taken <- flock(f) }()
		select {
		case <-ctx.Done():
			go func() { <-taken; f.Close() }()
			return nil, ctx.Err()
		case err := <-taken:
			if err != nil {
				f.Close()
				return nil, fmt.Errorf("lock %s: %w; set HF_HOME to a file system that has locks", path, err)
			}
		}
		if still(f, path) {
			return func() { f.Close() }, nil
		}
		f.Close() // its last holder removed it
	}
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			return err
		}
	}
}

// still reports whether an open file is the one at a path.
func still(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// whole reports whether the cache has a blob. One of the wrong size is as good as none.
func whole(blob string, size int64) bool {
	info, err := os.Stat(blob)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// link gives a blob its name in a snapshot.
func (c *Client) link(r Repo, commit, file, etag string) error {
	at := filepath.Join(c.snapshot(r, commit), filepath.FromSlash(file))
	if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
		return fmt.Errorf("make folder %s: %w", filepath.Dir(at), inCache(err))
	}
	to := strings.Repeat("../", 2+strings.Count(file, "/")) + "blobs/" + etag
	if now, err := os.Readlink(at); err == nil && now == to {
		return nil
	}
	temp := c.place(r, "blobs", fmt.Sprintf("%s.%016x.link.incomplete", etag, rand.Uint64()))
	if err := errors.Join(os.Symlink(to, temp), os.Rename(temp, at)); err != nil {
		os.Remove(temp)
		return fmt.Errorf("link %s: %w; set HF_HOME to a file system that has symbolic links", at, inCache(err))
	}
	return nil
}

// refer records which commit a branch or tag is.
func (c *Client) refer(r Repo, commit string) error {
	if r.Revision == commit {
		return nil
	}
	path := c.place(r, "refs", filepath.FromSlash(r.Revision))
	if was, err := os.ReadFile(path); err == nil && string(was) == commit {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("make folder %s: %w", filepath.Dir(path), inCache(err))
	}
	temp, err := os.CreateTemp(c.place(r, "blobs"), "ref-*.incomplete")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, inCache(err))
	}
	defer os.Remove(temp.Name()) // gone once renamed
	_, err = temp.WriteString(commit)
	if err := errors.Join(err, temp.Chmod(0o644), temp.Close(), os.Rename(temp.Name(), path)); err != nil {
		return fmt.Errorf("write %s: %w", path, inCache(err))
	}
	return nil
}

// cached is what the cache has of a repository. A snapshot that is not whole is an error that says what is missing.
func (c *Client) cached(r Repo) (Snapshot, error) {
	commit := r.Revision
	if !commitName.MatchString(commit) {
		data, err := os.ReadFile(c.place(r, "refs", filepath.FromSlash(r.Revision)))
		commit = string(data)
		if err != nil || !commitName.MatchString(commit) {
			return Snapshot{}, fmt.Errorf("the cache %s has nothing of its revision %s", c.Cache, r.Revision)
		}
	}
	dir := c.snapshot(r, commit)
	var files []File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil // a link to a blob that is gone
		}
		name, err := filepath.Rel(dir, path)
		files = append(files, File{Name: filepath.ToSlash(name), Size: info.Size()})
		return err
	})
	if err != nil {
		return Snapshot{}, fmt.Errorf("the cache %s has nothing of its revision %s", c.Cache, r.Revision)
	}
	if lacks := missing(r, dir, files); len(lacks) > 0 {
		return Snapshot{}, fmt.Errorf("the cache %s lacks %s", c.Cache, strings.Join(lacks, ", "))
	}
	files, err = choose(r, files)
	return Snapshot{Commit: commit, Dir: dir, Files: files}, err
}

// missing is the files without which a snapshot is of no use.
func missing(r Repo, dir string, files []File) (lacks []string) {
	has := func(name string) bool { return slices.ContainsFunc(files, func(f File) bool { return f.Name == name }) }
	if r.Kind == Dataset {
		if !slices.ContainsFunc(files, func(f File) bool { return slices.Contains([]string{".jsonl", ".parquet"}, filepath.Ext(f.Name)) }) {
			lacks = append(lacks, "its .jsonl or .parquet files")
		}
		return lacks
	}
	if !has("config.json") {
		lacks = append(lacks, "config.json")
	}
	if !has("tokenizer.json") && !(has("vocab.json") && has("merges.txt")) {
		lacks = append(lacks, "tokenizer.json")
	}
	switch {
	case has(wholeWeights):
	case has(shardIndex):
		shards, err := shardsOf(filepath.Join(dir, shardIndex))
		if err != nil {
			return append(lacks, "a readable "+shardIndex)
		}
		for _, shard := range shards {
			if !has(shard) {
				lacks = append(lacks, shard)
			}
		}
	default:
		lacks = append(lacks, wholeWeights)
	}
	return lacks
}

// shardsOf is the files that an index of weights names.
func shardsOf(index string) ([]string, error) {
	data, err := os.ReadFile(index)
	if err != nil {
		return nil, err
	}
	var parsed struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &parsed); err != nil {
		return nil, err
	}
	var shards []string
	for _, shard := range parsed.WeightMap {
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	return slices.Compact(shards), nil
}

// room refuses a download that the disk has no room for.
func (c *Client) room(dir string, need int64) error {
	var disk unix.Statfs_t
	if unix.Statfs(dir, &disk) != nil {
		return nil
	}
	if free := int64(disk.Bavail) * disk.Bsize; need > free {
		return fmt.Errorf("it needs %d MB more in %s, but the disk has %d MB free; free some space or set HF_HOME to another disk", need/1e6+1, c.Cache, free/1e6)
	}
	return nil
}

// inCache is obstacle for what lies in the cache.
func inCache(err error) error {
	if forbidden(err) {
		return errors.New("no permission to write there; set HF_HOME to a folder of your own")
	}
	return obstacle(err)
}

func forbidden(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}

// obstacle says what to do about an error of the file system, without the path, which the message names already.
func obstacle(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errors.New("disk is full or the quota used up; free some space and run again")
	case forbidden(err):
		return errors.New("no permission there; change that or choose another place")
	}
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
