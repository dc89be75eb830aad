package hub

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// Model brings a model into the cache and returns the places of its files. The note is not empty where the cache had to do.
func (c *Client) Model(ctx context.Context, name, revision string, progress func(done, total int64)) (paths []string, note string, err error) {
	s, err := c.Download(ctx, Repo{Model, name, revision}, progress)
	return s.Paths(), s.Note, err
}

// Rows brings a dataset of one .jsonl or .parquet file into the cache and returns the file's place. The note is not empty where the
// cache had to do.
func (c *Client) Rows(ctx context.Context, name, revision string, progress func(done, total int64)) (file, note string, err error) {
	r, err := Repo{Dataset, name, revision}.check()
	if err != nil {
		return "", "", err
	}
	one := func(files []File) error {
		if len(files) == 1 {
			return nil
		}
		return fmt.Errorf("dataset %s has %d %s files: %s; run %s and put the path of one into dataset.name", name, len(files), path.Ext(files[0].Name), some(files), r.again())
	}
	s, err := c.download(ctx, r, one, progress)
	if err != nil {
		return "", "", err
	}
	return s.Paths()[0], s.Note, nil
}

// some lists the first few names.
func some(files []File) string {
	const most = 4
	var names []string
	for _, f := range files[:min(len(files), most)] {
		names = append(names, path.Base(f.Name))
	}
	if len(files) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}
