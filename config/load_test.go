package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "config.toml")
	_, err := Load(missing)
	want := "open " + missing + ": there is no configuration here; copy the project's config.toml, or name another workspace: file does not exist"
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	_, err = Load(dir)
	if want := "read " + dir + ": is a directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	large := filepath.Join(dir, "large.toml")
	if err := os.WriteFile(large, make([]byte, maxBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(large)
	if want := "read " + large + ": the file is larger than 256 KiB; is it a configuration?"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadHoldsAbsolutePathsAgainstTheWorkspace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	for path, clash := range map[string]bool{"/models/phi-2-base/sub": true, "/.quartet": true, "": true, "/elsewhere": false} {
		if err := os.WriteFile(file, []byte("[paths]\nlora = '"+dir+path+"'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file); errors.As(err, new(*Error)) != clash {
			t.Errorf("lora in WORKSPACE%s: got %v, want an error: %v", path, err, clash)
		}
	}
}

// TestHostileFiles holds files that would take memory or time out of proportion; each must be refused.
func TestHostileFiles(t *testing.T) {
	long := strings.Repeat("k", maxBytes/2)
	for name, text := range map[string]string{
		"nested lists":         "a = " + strings.Repeat("[", maxBytes-4),
		"nested inline tables": "a = " + strings.Repeat("{a=", maxBytes/3-2),
		"dotted key":           strings.Repeat("a.", maxBytes/2-4) + "a = 1",
		"dotted header":        "[" + strings.Repeat("a.", maxBytes/2-4) + "a]",
		"long key of a list":   long + " = [" + strings.Repeat("1,", maxBytes/4-4) + "]",
		"long quoted header":   "['" + long + "']\n" + strings.Repeat("a=1\n", maxBytes/8-4),
		"long list":            "a = [" + strings.Repeat("1,", maxBytes/2-4) + "]",
	} {
		if len(text) > maxBytes {
			t.Fatalf("%s: the text is larger than a file may be", name)
		}
		if _, err := Parse("config.toml", []byte(text)); !errors.As(err, new(*Error)) {
			t.Errorf("%s: got %v, want an error with its place", name, err)
		} else if n := len(err.Error()); n > 2000 {
			t.Errorf("%s: the error has %d bytes", name, n)
		}
	}
}

func TestSources(t *testing.T) {
	for name, want := range map[string]Source{"microsoft/phi-2": Hub, "embedded": Embedded, "./phi": Folder, "../phi": Folder, "/data/phi": Folder, "models/phi": Hub} {
		if got := (Model{Name: name}).Source(); got != want {
			t.Errorf("the source of %q is %d, want %d", name, got, want)
		}
	}
}
