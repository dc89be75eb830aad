package hub

import (
	"context"
)

// Model brings a model into the cache and returns the places of its files. The note is not empty where the cache had to do.
func (c *Client) Model(ctx context.Context, name, revision string, progress func(done, total int64)) (paths []string, note string, err error) {
	s, err := c.Download(ctx, Repo{Model, name, revision}, progress)
	return s.Paths(), s.Note, err
}

// Rows brings the .jsonl or .parquet files of a dataset's training rows into the cache and returns their places, in order. The note is
// not empty where the cache had to do.
func (c *Client) Rows(ctx context.Context, name, revision string, progress func(done, total int64)) (paths []string, note string, err error) {
	pick := func(files []File) ([]File, error) { return trainingFiles(name, files) }
	s, err := c.download(ctx, Repo{Dataset, name, revision}, pick, progress)
	return s.Paths(), s.Note, err
}
