package safetensors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names of a checkpoint's files.
const (
	singleName = "model.safetensors"
	indexName  = "model.safetensors.index.json"
)

// Checkpoint is an open folder of weights, in one file or in shards. It is safe for concurrent reading.
type Checkpoint struct {
	dir   string
	names []string
	files []string
	open  []*File
	where map[string]*File
}

// OpenFolder opens model.safetensors in dir, or else the shards that model.safetensors.index.json names, and checks
// them whole: each tensor of the index must be in its shard and the other way round. It never reads pickles, and
// refuses a folder that has nothing else. The caller closes the Checkpoint.
func OpenFolder(dir string) (*Checkpoint, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
			return nil, fmt.Errorf("open %s: not a folder; name the folder that holds %s", dir, singleName)
		}
		return nil, fmt.Errorf("open %s: %w", dir, reason(err, "folder"))
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	ck := &Checkpoint{dir: dir, where: map[string]*File{}}
	switch {
	case has(singleName):
		err = ck.single()
	case has(indexName):
		err = ck.sharded()
	default:
		err = fmt.Errorf("open %s: %w", dir, noWeights(entries))
	}
	if err != nil {
		ck.Close()
		return nil, err
	}
	ck.names = slices.Sorted(maps.Keys(ck.where))
	return ck, nil
}

func (ck *Checkpoint) add(name string) (*File, error) {
	path := filepath.Join(ck.dir, name)
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	ck.files = append(ck.files, path)
	ck.open = append(ck.open, f)
	return f, nil
}

func (ck *Checkpoint) single() error {
	f, err := ck.add(singleName)
	if err != nil {
		return err
	}
	for _, t := range f.Tensors() {
		ck.where[t.Name] = f
	}
	return nil
}

func (ck *Checkpoint) sharded() error {
	path := filepath.Join(ck.dir, indexName)
	weightMap, err := ReadIndex(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	shards := slices.Compact(slices.Sorted(maps.Values(weightMap)))
	for _, shard := range shards {
		if _, err := os.Stat(filepath.Join(ck.dir, shard)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open %s: shard is missing; download it again", filepath.Join(ck.dir, shard))
		}
	}
	for _, shard := range shards {
		f, err := ck.add(shard)
		if err != nil {
			return err
		}
		for _, t := range f.Tensors() {
			if weightMap[t.Name] != shard {
				return fmt.Errorf("open %s: holds tensor %s, which the index does not place there; download the shard and the index again",
					filepath.Join(ck.dir, shard), quote(t.Name))
			}
			ck.where[t.Name] = f
		}
	}
	for _, name := range slices.Sorted(maps.Keys(weightMap)) {
		if ck.where[name] == nil {
			return fmt.Errorf("open %s: tensor %s is missing, although the index places it there; download the shard and the index again",
				filepath.Join(ck.dir, weightMap[name]), quote(name))
		}
	}
	return nil
}

// noWeights says what a folder without safetensors weights holds instead, and what to do.
func noWeights(entries []fs.DirEntry) error {
	shards := 0
	pickle := ""
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "adapter_model.safetensors":
			return fmt.Errorf("folder is a LoRA adapter, not a model; name the model's folder instead")
		case strings.HasSuffix(name, ".safetensors"):
			shards++
		case pickle == "" && isPickle(name):
			pickle = name
		}
	}
	switch {
	case shards > 0:
		return fmt.Errorf("folder has %d .safetensors files, but neither %s nor %s; download the index too", shards, singleName, indexName)
	case pickle != "":
		return fmt.Errorf("%s is a pickle, which can run code when loaded; convert it with the safetensors library or download the .safetensors files",
			quote(pickle))
	case len(entries) == 0:
		return errors.New("folder is empty; download the model into it")
	}
	return fmt.Errorf("folder has neither %s nor %s; download the model into it", singleName, indexName)
}

// isPickle tells by its name whether a file is of a kind that Python unpickles.
func isPickle(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle":
		return true
	}
	return false
}

// ReadIndex reads the model.safetensors.index.json at path into tensor → shard, the name of a file beside it. It does not
// look at the shards. The error does not name the path.
func ReadIndex(path string) (map[string]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, reason(err, "file")
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file; download it again")
	}
	if info.Size() > maxHeader {
		return nil, fmt.Errorf("index has %d bytes, more than the limit of %d; download it again", info.Size(), maxHeader)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, reason(err, "file")
	}
	defer file.Close()
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, reason(err, "file")
	}
	weightMap, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("%w; download it again", err)
	}
	return weightMap, nil
}

// Get finds a tensor by its name. The error names the tensor and the folder.
func (ck *Checkpoint) Get(name string) (Tensor, error) {
	if f := ck.where[name]; f != nil {
		t, _ := f.Get(name)
		return t, nil
	}
	return Tensor{}, fmt.Errorf("read %s: tensor %s is missing; check that the folder holds the model its config.json describes", ck.dir, quote(name))
}

// Names lists the tensors, sorted. The slice belongs to the Checkpoint.
func (ck *Checkpoint) Names() []string { return ck.names }

// Files lists the paths of the .safetensors files, sorted. The slice belongs to the Checkpoint.
func (ck *Checkpoint) Files() []string { return ck.files }

// Close unmaps all files. Tensors' Data must not be touched afterwards. Closing twice does nothing.
func (ck *Checkpoint) Close() error {
	var errs []error
	for _, f := range ck.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
