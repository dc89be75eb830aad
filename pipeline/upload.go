package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"quartet/config"
	"quartet/eval"
)

// Outgoing is what an upload of a variant is made of.
type Outgoing struct {
	Dir   string         // the variant's folder
	Omit  []string       // files in it that only this program reads
	State string         // folder for what an unfinished upload needs to go on
	Stale string         // why the variant is not what a run would make now, "" where it is
	Card  eval.CardFacts // for the model card; its Repository is not known here
}

// Outgoing gathers what an upload of a variant is made of. A variant that is not there is an error.
func (w *Workspace) Outgoing(variant string) (Outgoing, error) {
	u, err := w.outgoing(variant)
	if err != nil {
		return u, err
	}
	parts, err := Status(w)
	if err != nil {
		return u, err
	}
	for _, p := range parts {
		if variantNames[p.Stage] == variant && p.State != string(Fresh) {
			u.Stale = fmt.Sprintf("%s is %s: %s", variant, p.State, p.Reason)
		}
	}
	return u, nil
}

func (w *Workspace) outgoing(variant string) (Outgoing, error) {
	at := slices.IndexFunc(Stages, func(stage string) bool { return variantNames[stage] == variant && variant != "" })
	if at < 0 {
		return Outgoing{}, fmt.Errorf("no variant %q; the variants are base, quantized, lora, lora_quantized", variant)
	}
	stage := Stages[at]
	u := Outgoing{Dir: w.Path(w.folder(stage)), Omit: []string{trainingName}, State: w.state("uploads", variant), Card: eval.CardFacts{Variant: variant}}
	if _, err := os.Stat(u.Dir); errors.Is(err, fs.ErrNotExist) {
		return Outgoing{}, fmt.Errorf("variant %s is not there; `quartet run %s` makes it", variant, stage)
	} else if err != nil {
		return Outgoing{}, fmt.Errorf("read %s: %w", u.Dir, obstacle(err))
	}
	c := &u.Card
	if m := w.Config.Model; m.Source() == config.Hub {
		c.Base, c.BaseRevision = m.Name, m.Revision
	}
	if d := w.Config.Dataset; !d.Local() {
		c.Dataset = d.Name
	}
	if text, err := os.ReadFile(filepath.Join(w.Path(w.folder(Base)), "LICENSE")); err == nil {
		c.License = eval.LicenseOf(string(text))
	}
	if results, err := eval.Read(w.ResultsFile()); err == nil {
		c.Results, c.Settings = results, results.Settings
	}
	return u, nil
}
