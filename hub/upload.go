package hub

import (
	"context"
	"fmt"
	"io"
)

// uploaded is the error of an upload of a file to a place, nil where err is.
func uploaded(ctx context.Context, name string, to fmt.Stringer, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("upload %s to %s: %w", name, to, ended(ctx, err))
}

// ended is why ctx ended, if it has, and else err.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}
