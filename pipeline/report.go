package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quartet/eval"
)

// variantNames are the variants by the stage that makes them.
var variantNames = map[string]string{Base: eval.Base, Quantize: "quantized", LoRA: "lora", LoRAQuantize: "lora_quantized"}

// Report writes the reports of the workspace's results anew, from what lies on disk. With history the page compares the
// results with those of former runs. It returns the paths of what it wrote. lock is the workspace's, which the caller holds; nil to
// take it, and then a workspace in which another process works is a Locked error.
func Report(w *Workspace, lock *Lock, history bool) (written []string, err error) {
	if !exists(w.ResultsFile()) {
		return nil, fmt.Errorf("read %s: there are no results yet; `quartet run` makes them", w.ResultsFile())
	}
	if err := os.MkdirAll(w.state("stages"), 0o777); err != nil {
		return nil, fmt.Errorf("open workspace %s: %w", w.Dir, obstacle(err))
	}
	if lock == nil {
		if lock, err = w.Lock(); err != nil {
			return nil, err
		}
		defer lock.Release()
	}
	d, err := openDigester(w.state("digests.json"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.save()) }()
	if err := w.recoverAll(d, func(string) {}); err != nil {
		return nil, err
	}
	results, err := eval.Read(w.ResultsFile())
	if err != nil {
		return nil, err
	}
	m, err := w.manifest(Evaluate)
	if err != nil {
		return nil, err
	}
	run := eval.Run{Results: results}
	if m != nil && d.made(m, w.ResultsFile()) {
		if run, err = w.evaluated(*m, results); err != nil {
			return nil, err
		}
	}
	var former []eval.Run
	if history {
		if former, err = w.formerRuns(); err != nil {
			return nil, err
		}
	}
	if written, err = writeReports(filepath.Dir(w.ResultsFile()), run, former); err != nil || m == nil {
		return written, err
	}
	return written, w.rewritten(d, m, written)
}

// writeReports writes both reports of a run into a folder, and returns their paths.
func writeReports(dir string, run eval.Run, former []eval.Run) ([]string, error) {
	text, page := filepath.Join(dir, reportName), filepath.Join(dir, pageName)
	return []string{text, page}, errors.Join(run.WriteReport(text), run.WriteHTML(page, former))
}

// made reports whether a file is as a manifest's run wrote it.
func (d *digester) made(m *Manifest, path string) bool {
	was, ok := m.Outputs.find(filepath.Base(path))
	return ok && d.content(path) == was.Digest
}

// rewritten records files that were written anew, so that they don't make their stage stale.
func (w *Workspace) rewritten(d *digester, m *Manifest, paths []string) error {
	for _, path := range paths {
		f, err := d.file(path)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, obstacle(err))
		}
		m.Outputs = append(slices.DeleteFunc(m.Outputs, func(o File) bool { return o.Name == f.Name }), f)
	}
	slices.SortFunc(m.Outputs, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return writeJSON(w.manifestPath(Evaluate), m)
}

// writeReports writes the reports of a new evaluation.
func (j *job) writeReports(results *eval.Results) error {
	m := Manifest{Run: j.run, Inputs: map[string]Tree{}}
	for name, in := range j.inputs {
		m.Inputs[name] = in.tree
	}
	mark, err := j.w.mark(j.stage)
	if err != nil {
		return err
	}
	if mark != nil {
		m.Started = mark.Started
	}
	run, err := j.w.evaluated(m, results)
	if err != nil {
		return err
	}
	_, err = writeReports(j.temp, run, nil)
	return err
}

// evaluated is an evaluation with what its manifest, and those of the stages before it, tell of it.
func (w *Workspace) evaluated(m Manifest, results *eval.Results) (eval.Run, error) {
	run := eval.Run{ID: m.Run, Started: m.Started, Results: results}
	if held, ok := m.Inputs["held_out"]; ok {
		run.Artefacts = append(run.Artefacts, artefact("held-out rows", "", held))
	}
	for _, stage := range Stages {
		tree, ok := m.Inputs[stage]
		if !ok {
			continue
		}
		maker, err := w.maker(stage, tree)
		if err != nil {
			return run, err
		}
		a := artefact(variantNames[stage], "", tree)
		if maker != nil {
			a.Folder, a.Run, a.Made, a.Seconds = maker.Folder, maker.Run, maker.Started, eval.Figure(maker.Seconds)
			if rows, ok := maker.Inputs["dataset"]; ok {
				run.Artefacts = append(run.Artefacts, artefact("training rows", "", rows))
			}
		}
		run.Artefacts = append(run.Artefacts, a)
	}
	return run, nil
}

func artefact(name, folder string, tree Tree) eval.Artefact {
	a := eval.Artefact{Name: name, Folder: folder, Seconds: eval.Unknown, Digest: tree.digest()}
	for _, f := range tree {
		a.Files = append(a.Files, eval.ArtefactFile{Name: f.Name, Bytes: f.Size, Digest: f.Digest})
	}
	return a
}

// maker is the manifest of the last run of a stage that made the files of a tree, nil where none is known.
func (w *Workspace) maker(stage string, tree Tree) (*Manifest, error) {
	made := func(m *Manifest) bool {
		return m != nil && len(tree) > 0 && !slices.ContainsFunc(tree, func(f File) bool {
			was, ok := m.Outputs.find(f.Name)
			return !ok || was.Digest != f.Digest
		})
	}
	m, err := w.manifest(stage)
	if err != nil || made(m) {
		return m, err
	}
	runs, err := w.history(stage)
	if err != nil {
		return nil, err
	}
	for _, run := range slices.Backward(runs) {
		var m Manifest
		if found, err := readJSON(w.state("history", stage, run, "manifest.json"), &m); err != nil || found && made(&m) {
			return &m, err
		}
	}
	return nil, nil
}

// formerRuns are the evaluations in the history that have results, newest first.
func (w *Workspace) formerRuns() ([]eval.Run, error) {
	names, err := w.history(Evaluate)
	if err != nil {
		return nil, err
	}
	var runs []eval.Run
	for _, name := range slices.Backward(names) {
		results, err := eval.Read(w.state("history", Evaluate, name, resultsName))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a crash came before its manifest
		}
		if err != nil {
			return nil, err
		}
		run := eval.Run{ID: name, Results: results}
		var m Manifest
		found, err := readJSON(w.state("history", Evaluate, name, "manifest.json"), &m)
		if err != nil {
			return nil, err
		}
		if found {
			run.ID, run.Started = m.Run, m.Started
		}
		runs = append(runs, run)
	}
	return runs, nil
}
