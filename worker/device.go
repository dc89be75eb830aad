package worker

import (
	"fmt"
	"sync"

	"quartet/kernels"
	"quartet/pipeline"
)

// device is the one backend of the worker, open while a run or a resident model uses it.
type device struct {
	turn turn // locked by whoever computes

	mu      sync.Mutex
	backend kernels.Backend
	note    string
	users   int
}

// use opens the device that the configuration names, or joins those who use the open one. leave ends it.
func (d *device) use(name string) (b kernels.Backend, note string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users == 0 {
		if d.backend, d.note, err = pipeline.OpenBackend(name); err != nil {
			return nil, "", err
		}
	}
	d.users++
	return d.backend, d.note, nil
}

// leave closes the device when nobody else uses it.
func (d *device) leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users > 0 {
		return nil
	}
	b := d.backend
	d.backend = nil
	if err := pipeline.CloseBackend(b); err != nil {
		return fmt.Errorf("close the device: %w", err)
	}
	return nil
}

// name is what people call the device that a configuration names: the GPU's name, or "cpu".
func (d *device) name(configured string) (string, error) {
	b, _, err := d.use(configured)
	if err != nil {
		return "", err
	}
	name := b.Name()
	if g, ok := b.(interface{ GPU() string }); ok {
		name = g.GPU()
	}
	return name, d.leave()
}
