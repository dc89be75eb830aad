package hub

import (
	"context"
	"fmt"
)

// uploaded is the error of an upload of a file to a place, nil where err is: why ctx ended, if it has, and else err.
func uploaded(ctx context.Context, name string, to fmt.Stringer, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("upload %s to %s: %w", name, to, err)
}
