package config

import (
	"path/filepath"
	"regexp"
	"strings"
)

// Source is where the base model comes from.
type Source int

// The sources of a base model.
const (
	Hub      Source = iota // a repository, "owner/name"
	Folder                 // a local folder in the Hugging Face layout
	Embedded               // the tiny Phi inside the binary
)

// Source tells by the model's name where it comes from. A folder begins with "/", "./" or "../".
func (m Model) Source() Source {
	switch {
	case m.Name == "embedded":
		return Embedded
	case strings.HasPrefix(m.Name, "/"), strings.HasPrefix(m.Name, "./"), strings.HasPrefix(m.Name, "../"):
		return Folder
	}
	return Hub
}

// Local reports whether the dataset is a file of this machine rather than a repository of the hub.
func (d Dataset) Local() bool { return rowsFile(d.Name) }

// rowsFile tells by a file's name whether its rows can be read.
func rowsFile(name string) bool {
	return strings.HasSuffix(name, ".jsonl") || strings.HasSuffix(name, ".parquet")
}

var repository = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$`)

var revision = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]{0,199}$`)

func hubID(name string) bool { return repository.MatchString(name) && !strings.Contains(name, "..") }

func hubRevision(name string) bool {
	return revision.MatchString(name) && !strings.Contains(name, "..")
}

// resolve is a path of the configuration as an absolute one.
func resolve(workspace, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(workspace, path)
}

// holds reports whether a path is the folder or lies in it.
func holds(folder, path string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}
