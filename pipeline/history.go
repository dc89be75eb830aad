package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// keeps are the files of a stage's former runs that the history holds besides the manifest: never whole models.
var keeps = map[string][]string{
	LoRA:     {"adapter_config.json", "adapter_model.safetensors", trainingName},
	Evaluate: {resultsName, reportName, pageName},
	Upload:   {uploadsName},
}

// keepFormer moves what was replaced to the history. What the program did not make is kept whole, beside its place.
func (w *Workspace) keepFormer(d *digester, p pending, crash crashPoint) error {
	if p.Former == nil {
		return nil
	}
	stage := p.Manifest.Stage
	if p.Former.Foreign {
		for _, it := range p.Items {
			kept := w.foreignPath(it.Target, p.Manifest.Run)
			if from, ok := it.former(); ok && !exists(kept) && d.content(from) != it.Digest {
				if err := os.Rename(from, kept); err != nil {
					return fmt.Errorf("keep the former %s: %w", it.Target, obstacle(err))
				}
			}
		}
		return nil
	}
	keep := w.Config.History.Keep
	if keep > 0 && p.Former.Manifest.Run != "" {
		dir := w.state("history", stage, p.Former.Manifest.Run)
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("keep the former run of %s: %w", stage, obstacle(err))
		}
		for _, name := range keeps[stage] {
			if from, ok := formerFile(p.Items, name); ok {
				if err := move(from, filepath.Join(dir, name)); err != nil {
					return fmt.Errorf("keep the former run of %s: %w", stage, err)
				}
				crash("kept " + name)
			}
		}
		if err := writeJSON(filepath.Join(dir, "manifest.json"), p.Former.Manifest); err != nil {
			return err
		}
	}
	return w.pruneHistory(stage, keep)
}

// foreignPath is where an artefact goes that the program did not make and a run replaces.
func (w *Workspace) foreignPath(target, run string) string { return target + ".kept-" + run }

// former is where an item's replaced content lies after the swap, if there was any.
func (i item) former() (string, bool) {
	for _, path := range []string{i.oldPath(), i.New} {
		if exists(path) {
			return path, true
		}
	}
	return "", false
}

// formerFile is where one file of the replaced artefact lies after the swap.
func formerFile(items []item, name string) (string, bool) {
	for _, it := range items {
		from, ok := it.former()
		if !ok {
			continue
		}
		if info, err := os.Stat(from); err == nil && info.IsDir() {
			from = filepath.Join(from, name)
		} else if filepath.Base(it.Target) != name {
			continue
		}
		if exists(from) {
			return from, true
		}
	}
	return "", false
}

// move renames a file, or copies it to another file system.
func move(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return obstacle(err)
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return obstacle(err)
	}
	return copyFile(from, to, func(int64) {})
}

// history is a stage's former runs, oldest first.
func (w *Workspace) history(stage string) (runs []string, err error) {
	entries, err := os.ReadDir(w.state("history", stage))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the history of %s: %w", stage, obstacle(err))
	}
	for _, e := range entries {
		if e.IsDir() {
			runs = append(runs, e.Name())
		}
	}
	slices.Sort(runs)
	return runs, nil
}

// pruneHistory removes the oldest runs of a stage beyond keep.
func (w *Workspace) pruneHistory(stage string, keep int) error {
	runs, err := w.history(stage)
	if err != nil {
		return err
	}
	for _, run := range runs[:max(0, len(runs)-keep)] {
		if err := os.RemoveAll(w.state("history", stage, run)); err != nil {
			return fmt.Errorf("shorten the history of %s: %w", stage, obstacle(err))
		}
	}
	return nil
}
