package eval

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"quartet/kernels"
	"quartet/model"
)

// Base is the name of the variant that the others' divergence is measured from.
const Base = "base"

// Variant is where one of the models to compare lies.
type Variant struct {
	Name    string
	Weights string // the model's folder; variants that name the same folder share its memory
	Adapter string // the adapter's folder, "" for none
}

// opened is a variant in memory, or why it is not there.
type opened struct {
	Variant
	model        *model.Model
	missing      string
	disk         int64 // bytes of all files that the variant needs
	adapterBytes int64 // of these, the adapter's
	load         time.Duration
}

// open loads variants. One whose folder does not exist is missing; one that can't be loaded is an error.
func open(ctx context.Context, b kernels.Backend, variants []Variant, told func(variant string)) (all []*opened, release func(), err error) {
	type shared struct {
		weights *model.Weights
		load    time.Duration
	}
	folders := map[string]shared{}
	var loaded []*model.Weights
	release = func() {
		for _, v := range all {
			if v.model != nil && v.model.Adapter != nil {
				v.model.Adapter.Free()
			}
		}
		for _, s := range folders {
			s.weights.Close()
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	for _, variant := range variants {
		if err := ctx.Err(); err != nil {
			return nil, release, err
		}
		told(variant.Name)
		v := &opened{Variant: variant}
		all = append(all, v)
		for _, folder := range []string{variant.Weights, variant.Adapter} {
			if folder == "" {
				continue
			}
			size, err := folderBytes(folder)
			if errors.Is(err, fs.ErrNotExist) {
				v.missing = fmt.Sprintf("%s is not there", folder)
				break
			}
			if err != nil {
				return nil, release, fmt.Errorf("variant %s: %w", variant.Name, err)
			}
			v.disk += size
			if folder == variant.Adapter {
				v.adapterBytes = size
			}
		}
		if v.missing != "" {
			continue
		}
		s, ok := folders[variant.Weights]
		if !ok {
			started := time.Now()
			if s.weights, err = model.Load(b, variant.Weights, loaded...); err != nil {
				return nil, release, fmt.Errorf("variant %s: %w", variant.Name, err)
			}
			s.load = time.Since(started)
			loaded = append(loaded, s.weights)
			folders[variant.Weights] = s
		}
		v.model, v.load = &model.Model{Weights: s.weights}, s.load
		if variant.Adapter != "" {
			started := time.Now()
			if v.model.Adapter, err = model.LoadAdapter(b, s.weights.Config, variant.Adapter); err != nil {
				return nil, release, fmt.Errorf("variant %s: %w", variant.Name, err)
			}
			v.load += time.Since(started)
		}
	}
	return all, release, nil
}

// folderBytes is the size of a folder's files.
func folderBytes(dir string) (int64, error) {
	if _, err := os.Stat(dir); err != nil {
		return 0, err
	}
	var n int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path) // through links, as the hub's cache has them
		if err != nil {
			return err
		}
		n += info.Size()
		return nil
	})
	return n, err
}
