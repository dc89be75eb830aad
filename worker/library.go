package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"quartet/eval"
	"quartet/kernels"
	"quartet/model"
	"quartet/tokenizer"
)

// library keeps the models that answer in memory from one prompt to the next. A model whose files have changed is loaded anew.
// Whoever calls its methods holds the turn on the device.
type library struct {
	device  *device
	backend kernels.Backend // nil while nothing is loaded
	loaded  int             // weights and adapters in memory

	weights  map[string]*shelf[*model.Weights] // by folder, as what follows
	adapters map[string]*shelf[*model.Adapter]
	words    map[string]*shelf[*tokenizer.Tokenizer]
}

func newLibrary(d *device) *library {
	return &library{
		device: d, weights: map[string]*shelf[*model.Weights]{}, adapters: map[string]*shelf[*model.Adapter]{},
		words: map[string]*shelf[*tokenizer.Tokenizer]{},
	}
}

// shelf is something loaded from a folder.
type shelf[T any] struct {
	thing T
	stamp string // of the folder's files when it was loaded
	users int
	old   bool // another has taken its place
	free  func()
}

// borrow gives a variant, on the device of that name, until giveBack is called. Where it does not fit, the models that nobody uses make room.
func (l *library) borrow(device string, v eval.Variant) (m *model.Model, giveBack func(), err error) {
	if l.backend == nil {
		if l.backend, _, err = l.device.use(device); err != nil {
			return nil, nil, err
		}
	}
	m, giveBack, err = l.take(v)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && l.drop(true) {
		m, giveBack, err = l.take(v)
	}
	if err != nil {
		return nil, nil, errors.Join(err, l.settle())
	}
	return m, giveBack, nil
}

func (l *library) take(v eval.Variant) (*model.Model, func(), error) {
	w, err := fetch(l.weights, v.Weights, func() (*model.Weights, func(), error) {
		var beside []*model.Weights
		for _, s := range l.weights {
			beside = append(beside, s.thing)
		}
		w, err := model.Load(l.backend, v.Weights, beside...)
		if err == nil {
			l.loaded++
		}
		return w, func() { w.Close(); l.loaded-- }, err
	})
	if err != nil {
		return nil, nil, err
	}
	m := &model.Model{Weights: w.thing}
	if v.Adapter == "" {
		return m, w.leave, nil
	}
	a, err := fetch(l.adapters, v.Adapter, func() (*model.Adapter, func(), error) {
		a, err := model.LoadAdapter(l.backend, w.thing.Config, v.Adapter)
		if err == nil {
			l.loaded++
		}
		return a, func() { a.Free(); l.loaded-- }, err
	})
	if err != nil {
		w.leave()
		return nil, nil, err
	}
	m.Adapter = a.thing
	return m, func() { a.leave(); w.leave() }, nil
}

// tokenizer is the tokenizer in a model's folder.
func (l *library) tokenizer(dir string) (*tokenizer.Tokenizer, error) {
	s, err := fetch(l.words, dir, func() (*tokenizer.Tokenizer, func(), error) {
		t, err := tokenizer.Load(dir)
		return t, func() {}, err
	})
	if err != nil {
		return nil, err
	}
	s.leave()
	return s.thing, nil
}

// fetch takes what lies in a folder from its shelf, or loads it.
func fetch[T any](from map[string]*shelf[T], folder string, load func() (T, func(), error)) (*shelf[T], error) {
	now, err := stamp(folder)
	if err != nil {
		return nil, err
	}
	if s := from[folder]; s != nil {
		if s.stamp == now {
			s.users++
			return s, nil
		}
		s.old = true
		s.tidy()
		delete(from, folder)
	}
	thing, free, err := load()
	if err != nil {
		return nil, err
	}
	s := &shelf[T]{thing: thing, stamp: now, users: 1, free: free}
	from[folder] = s
	return s, nil
}

func (s *shelf[T]) leave() {
	s.users--
	s.tidy()
}

// tidy frees what nobody uses and nobody will ask for.
func (s *shelf[T]) tidy() {
	if s.old && s.users == 0 {
		s.free()
	}
}

// evict frees the models that are not in use; without all, those of them whose files have changed.
func (l *library) evict(all bool) error {
	l.drop(all)
	return l.settle()
}

func (l *library) drop(all bool) (any bool) {
	adapters, weights := dropFrom(l.adapters, all), dropFrom(l.weights, all)
	return adapters || weights
}

func dropFrom[T any](from map[string]*shelf[T], all bool) (any bool) {
	for folder, s := range from {
		if s.users > 0 {
			continue
		}
		if now, err := stamp(folder); !all && err == nil && now == s.stamp {
			continue
		}
		s.free()
		delete(from, folder)
		any = true
	}
	return any
}

// settle leaves the device where nothing is loaded.
func (l *library) settle() error {
	if l.loaded > 0 || l.backend == nil {
		return nil
	}
	l.backend = nil
	return l.device.leave()
}

// stamp names the state of a folder's files by their size, time and inode.
func stamp(folder string) (string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return "", missing(folder)
	}
	if err != nil {
		return "", err
	}
	var all []string
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(folder, e.Name()))
		if err != nil {
			continue // removed meanwhile
		}
		var inode uint64
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = s.Ino
		}
		all = append(all, fmt.Sprint(e.Name(), info.Size(), info.ModTime().UnixNano(), inode))
	}
	slices.Sort(all)
	return strings.Join(all, "\n"), nil
}

// missing is the error for a folder that a stage has not made yet.
type missing string

func (m missing) Error() string {
	return filepath.Base(string(m)) + " is not there yet; run the stage that makes it"
}

func (missing) Unwrap() error { return fs.ErrNotExist }
