// Package pipeline makes the four variants of a base model and evaluates them: what has to run and why (the plan, a pure
// function of what lies on disk and of the configuration), the stages that do it, and the care that a crash at any byte
// leaves the former or the new artefact whole.
//
// What it knows of former runs lies in the workspace's .quartet folder: stages/ (a manifest of each stage's last run,
// and a mark while one runs), pending/ (moves that a crash must not leave half done), history/ (former runs' adapters,
// curves and results), checkpoints/, journal/, digests.json and lock.
package pipeline

import (
	"path/filepath"
	"slices"

	"quartet/config"
)

// Stage names, in the order in which they run.
const (
	Base         = "base"
	Quantize     = "quantize"
	LoRA         = "lora"
	LoRAQuantize = "lora_quantize"
	Evaluate     = "evaluate"
	Upload       = "upload" // only where the configuration names a place
)

// Stages are the stages of every workspace, in order.
var Stages = []string{Base, Quantize, LoRA, LoRAQuantize, Evaluate}

// Stages are the workspace's, in order.
func (w *Workspace) Stages() []string {
	if !w.Config.Upload.Any() {
		return Stages
	}
	return append(slices.Clone(Stages), Upload)
}

// Names of what the program writes into the artefacts' folders besides the formats' own files.
const (
	trainingName = "training.json"
	resultsName  = "results.json"
	reportName   = "report.md"
	pageName     = "report.html"
	uploadsName  = "uploads.json"
)

// Workspace is a folder with a configuration, in which the pipeline works.
type Workspace struct {
	Dir    string // absolute
	Config *config.Config
}

// Open reads the configuration of the workspace in dir. Its error is config.Load's.
func Open(dir string) (*Workspace, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c, err := config.Load(filepath.Join(abs, "config.toml"))
	if err != nil {
		return nil, err
	}
	return &Workspace{abs, c}, nil
}

// Path is a path of the configuration as an absolute one.
func (w *Workspace) Path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(w.Dir, p)
}

// state is a path in .quartet.
func (w *Workspace) state(parts ...string) string {
	return filepath.Join(append([]string{w.Dir, ".quartet"}, parts...)...)
}

// JournalDir is the folder of the workspace's event journal.
func (w *Workspace) JournalDir() string { return w.state("journal") }

// ResultsFile is the path of results.json.
func (w *Workspace) ResultsFile() string {
	return filepath.Join(w.Path(w.Config.Paths.Results), resultsName)
}

// folder is a stage's artefact, as the configuration spells it.
func (w *Workspace) folder(stage string) string {
	p := w.Config.Paths
	return map[string]string{Base: p.Base, Quantize: p.Quantized, LoRA: p.LoRA, LoRAQuantize: p.LoRAQuantized, Evaluate: p.Results, Upload: p.Results}[stage]
}

// needs are the stages whose artefacts a stage reads.
func (w *Workspace) needs(stage string) []string {
	switch stage {
	case Quantize:
		return []string{Base}
	case LoRA:
		if w.Config.LoRA.Base == "nf4" {
			return []string{Quantize}
		}
		return []string{Base}
	case LoRAQuantize:
		return []string{Base, LoRA}
	case Evaluate:
		return []string{Base, Quantize, LoRA, LoRAQuantize}
	case Upload:
		var needs []string
		card := false
		for _, u := range w.uploads() {
			needs, card = append(needs, u.stage), card || u.card()
		}
		if card {
			needs = append(needs, Evaluate)
		}
		return needs
	}
	return nil
}
