// Package demo holds the model and the rows of `quartet demo`: a Phi of 2.5 million parameters that knows a small made-up
// world, and questions about it to fine-tune and to test with. README.md tells how they were made.
package demo

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

//go:embed config.toml train.jsonl test.jsonl tiny-phi
var files embed.FS

// model is the folder of the model in files.
const model = "tiny-phi"

// Model is the tiny Phi as a Hugging Face folder: config.json, generation_config.json, model.safetensors (fp16),
// tokenizer.json and tokenizer_config.json.
func Model() fs.FS {
	sub, err := fs.Sub(files, model)
	if err != nil {
		panic(err) // the name is a constant
	}
	return sub
}

// WriteModel writes the tiny Phi into a folder, which it makes where there is none. Each file is whole or absent at any
// moment; files of the same names are replaced.
func WriteModel(dir string) error {
	entries, err := files.ReadDir(model)
	if err != nil {
		return fmt.Errorf("read the embedded model: %w", err)
	}
	for _, e := range entries {
		if err := write(path.Join(model, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// WriteWorkspace makes a folder the demo's workspace: config.toml, data/train.jsonl and data/test.jsonl. It writes what is
// missing and leaves every file that is there as it is.
func WriteWorkspace(dir string) error {
	for _, name := range []string{"data/train.jsonl", "data/test.jsonl", "config.toml"} {
		to := filepath.Join(dir, name)
		_, err := os.Lstat(to)
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make the demo's workspace: %w", err)
		}
		if err := write(path.Base(name), to); err != nil {
			return err
		}
	}
	return nil
}

// write puts one embedded file at a path of the disk: beside it first, synced, then renamed over it.
func write(name, to string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s of the demo: %w", path.Base(name), err)
		}
	}()
	data, err := files.ReadFile(name)
	if err != nil {
		return err
	}
	dir := filepath.Dir(to)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(to)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone once renamed
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
