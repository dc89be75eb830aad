package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"quartet/config"
	"quartet/demo"
)

// look gathers the facts of all stages from the disk.
func (w *Workspace) look(d *digester) ([]facts, error) {
	working := w.working()
	stages := w.Stages()
	all := make([]facts, len(stages))
	for i, stage := range stages {
		f, err := w.lookAt(d, stage)
		if err != nil {
			return nil, err
		}
		f.running = working
		all[i] = f
	}
	return all, nil
}

func (w *Workspace) lookAt(d *digester, stage string) (f facts, err error) {
	f = facts{stage: stage, folder: w.folder(stage), format: formats[stage], needs: w.needs(stage)}
	if f.config, err = w.Config.Part(stage); err != nil {
		return f, err
	}
	if f.manifest, err = w.manifest(stage); err != nil {
		return f, err
	}
	if f.mark, err = w.mark(stage); err != nil {
		return f, err
	}
	if stage == LoRA {
		f.resumeAt = w.checkpointStep()
	}
	dir := w.Path(f.folder)
	if f.manifest != nil {
		f.found = d.present(dir, f.manifest.Outputs)
		f.there = len(f.found) > 0
	} else {
		f.there = w.occupied(stage)
	}
	f.adopt = stage == Base && w.Config.Model.Source() == config.Hub
	f.inputs = w.inputs(d, stage)
	var dataset unfetched
	switch {
	case f.adopt && !f.adopts():
		f.fetch = w.Config.Model.Name
	case errors.As(f.inputs["dataset"].err, &dataset):
		f.fetch = dataset.name
	}
	return f, nil
}

// occupied reports whether the place of a stage's artefact is taken.
func (w *Workspace) occupied(stage string) bool {
	dir := w.Path(w.folder(stage))
	switch stage {
	case Evaluate:
		return exists(filepath.Join(dir, resultsName)) || exists(filepath.Join(dir, reportName))
	case Upload:
		return exists(filepath.Join(dir, uploadsName))
	}
	return exists(dir)
}

// present is those of the recorded files that are there, as they are now.
func (d *digester) present(dir string, recorded Tree) (found Tree) {
	for _, f := range recorded {
		if now, err := d.file(filepath.Join(dir, f.Name)); err == nil {
			found = append(found, now)
		}
	}
	return found
}

// inputs are what a stage reads, as it is now: artefacts by the name of their stage, and files.
func (w *Workspace) inputs(d *digester, stage string) map[string]input {
	c, all := w.Config, map[string]input{}
	for _, need := range w.needs(stage) {
		if need == Evaluate {
			all[need] = w.fileInput(d, resultsName, w.ResultsFile())
		} else {
			all[need] = w.folderInput(d, w.folder(need))
		}
	}
	switch stage {
	case Base:
		switch c.Model.Source() {
		case config.Embedded:
			tree, err := embedded()
			all["source"] = input{"the embedded model", tree, err}
		case config.Folder:
			// The base outlives its source, which may be a download that was cleared away.
			if in := w.folderInput(d, c.Model.Name); !errors.Is(in.err, fs.ErrNotExist) || !w.occupied(Base) {
				all["source"] = in
			}
		}
	case LoRA, Evaluate:
		if stage == LoRA || c.Dataset.HeldOutFile == "" {
			all["dataset"] = w.dataset(d)
		}
		if stage == Evaluate && c.Dataset.HeldOutFile != "" {
			all["held_out"] = w.fileInput(d, c.Dataset.HeldOutFile, w.Path(c.Dataset.HeldOutFile))
		}
	}
	return all
}

func (w *Workspace) folderInput(d *digester, folder string) input {
	in := input{label: folder}
	if in.tree, in.err = d.tree(w.Path(folder), weighs); in.err != nil {
		in.err = fmt.Errorf("read %s: %w", folder, absent(in.err))
	}
	return in
}

func (w *Workspace) dataset(d *digester) input {
	in := w.fileInput(d, w.Config.Dataset.Name, w.DatasetFile())
	if !w.Config.Dataset.Local() && errors.Is(in.err, fs.ErrNotExist) {
		in.err = unfetched{w.Config.Dataset.Name}
	}
	return in
}

func (w *Workspace) fileInput(d *digester, label, path string) input {
	in := input{label: label}
	f, err := d.file(path)
	if err != nil {
		in.err = fmt.Errorf("read %s: %w", label, absent(err))
		return in
	}
	in.tree = Tree{f}
	return in
}

// gone is fs.ErrNotExist with what to do about it.
type gone struct{}

func (gone) Error() string { return "not there; put it in place or change the path in config.toml" }
func (gone) Unwrap() error { return fs.ErrNotExist }

// absent words an error of reading an input.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return gone{}
	}
	return obstacle(err)
}

// embedded is the digests of the model in the program.
var embedded = sync.OnceValues(func() (Tree, error) { return hashFS(demo.Model()) })

// hashFS is the digests of files that are not on disk, as digester computes them.
func hashFS(files fs.FS) (Tree, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	var t Tree
	for _, e := range entries {
		data, err := fs.ReadFile(files, e.Name())
		if err != nil {
			return nil, err
		}
		digest, err := hashChunks(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return nil, err
		}
		t = append(t, File{e.Name(), int64(len(data)), digest})
	}
	return t, nil
}

// remember saves digests for the next plan, where the workspace can be written; a plan does without.
func (w *Workspace) remember(d *digester) {
	if w.working() {
		return // the run saves its own
	}
	if os.MkdirAll(w.state(), 0o777) == nil {
		d.save()
	}
}

// CheckStages is an error that names the first of the asked stages that the workspace has not, nil where it has all.
func (w *Workspace) CheckStages(asked []string) error {
	for _, stage := range asked {
		switch {
		case slices.Contains(w.Stages(), stage):
		case stage == Upload:
			return errors.New("there is nothing to upload; name a variant's place in [upload] of config.toml")
		default:
			return fmt.Errorf("no stage %q; the stages are %s", stage, strings.Join(w.Stages(), ", "))
		}
	}
	return nil
}

// amongResults reports whether a stage's artefact is files in the folder of the results, rather than a folder.
func amongResults(stage string) bool { return stage == Evaluate || stage == Upload }
