package train

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"quartet/model/modeltest"
)

// TestCutInsideAStep lets each run do one step and cuts it between two layers of the next, forward or backward, until the last
// gets to the end; the adapter is that of an undisturbed run.
func TestCutInsideAStep(t *testing.T) {
	const perStep = 4 // two layers, forward and backward
	rows, o := someRows(9), someOptions()
	undisturbed, _ := tiny(t, modeltest.Shape{}, 0.1)
	steps := len(mustRun(t, undisturbed, rows, o, Hooks{}).Steps)

	m, _ := tiny(t, modeltest.Shape{}, 0.1)
	folder := t.TempDir()
	for cuts := 0; ; cuts++ {
		if cuts > 0 {
			freshAdapter(t, m, 0.1)
		}
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		m.Between = func() error {
			if calls++; calls > perStep+cuts%perStep {
				cancel()
			}
			return ctx.Err()
		}
		r, err := Run(ctx, m, rows, o, Hooks{Checkpoint: folder})
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || len(r.Steps) != cuts+1 {
			t.Fatalf("cut %d, after %d steps of %d: %v", cuts, len(r.Steps), steps, err)
		}
	}
	if !bytes.Equal(adapterBytes(m.Adapter), adapterBytes(undisturbed.Adapter)) {
		t.Error("the adapter differs from an undisturbed run's")
	}
}
