package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Uploader takes variants elsewhere.
type Uploader interface {
	// Upload puts a variant in a place, hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path, and returns the address
	// under which people find it. What is there already is not sent again. told is told the file at hand and the bytes of all files
	// that are there. It asks the user nothing: who is not signed in where that is needed gets an error that says how.
	Upload(ctx context.Context, o Outgoing, dest string, public bool, told func(file string, done, total int64)) (address string, err error)
}

// noUploader is the uploader of a run that cannot upload.
type noUploader struct{}

func (noUploader) Upload(context.Context, Outgoing, string, bool, func(string, int64, int64)) (string, error) {
	return "", errors.New("this run cannot upload; empty [upload] in config.toml")
}

// destination is where a variant goes.
type destination struct{ stage, to string }

// card reports whether a model card goes with the variant, which tells the evaluation's results.
func (d destination) card() bool { return strings.HasPrefix(d.to, "hf://") }

// uploads are the places that the configuration names, in the stages' order. Paths are absolute.
func (w *Workspace) uploads() (all []destination) {
	u := w.Config.Upload
	for _, d := range []destination{{Base, u.Base}, {Quantize, u.Quantized}, {LoRA, u.LoRA}, {LoRAQuantize, u.LoRAQuantized}} {
		if path, zip := strings.CutPrefix(d.to, "zip://"); zip {
			d.to = "zip://" + w.Path(path)
		}
		if d.to != "" {
			all = append(all, d)
		}
	}
	return all
}

// uploaded is what uploads.json tells of a variant.
type uploaded struct {
	Variant  string    `json:"variant"`
	To       string    `json:"to"`
	Address  string    `json:"address"`
	Digest   string    `json:"digest"` // of the variant's files
	Finished time.Time `json:"finished"`
}

// upload sends the variants one after the other. Those that are there already cost little.
func upload(ctx context.Context, j *job) error {
	var all []uploaded
	for _, d := range j.w.uploads() {
		variant := variantNames[d.stage]
		o, err := j.w.outgoing(variant)
		if err != nil {
			return err
		}
		if path, zip := strings.CutPrefix(d.to, "zip://"); zip {
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				return fmt.Errorf("make folder %s: %w", filepath.Dir(path), obstacle(err))
			}
		}
		meter := j.meter("bytes")
		told := func(file string, done, total int64) { meter.Label(variant+"/"+file, done, total) }
		address, err := j.o.Uploader.Upload(ctx, o, d.to, j.w.Config.Upload.Public, told)
		if err != nil {
			return err
		}
		j.log("%s is at %s", variant, address)
		all = append(all, uploaded{variant, d.to, address, j.inputs[d.stage].tree.digest(), time.Now().UTC()})
	}
	return writeJSON(filepath.Join(j.temp, uploadsName), all)
}
