// Package docs holds the project's documents; its test keeps the map's import rules true.
package docs

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rules reads the map's table: each package's allowed imports.
func rules(t *testing.T) map[string][]string {
	data, err := os.ReadFile("map.md")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|.*\\| ([^|]+) \\|$").FindAllStringSubmatch(string(data), -1) {
		allowed[m[1]] = strings.Split(m[2], ", ")
	}
	return allowed
}

func TestImportsFollowTheMap(t *testing.T) {
	allowed := rules(t)
	seen := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata" || d.Name() == "gen") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			if d.Name() != "map_test.go" {
				return nil
			}
		}
		pkg, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		seen[pkg] = true
		rule, ok := allowed[pkg]
		if !ok {
			t.Errorf("%s: package %s is not on the map", path, pkg)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "quartet/")
			if ours && !slices.Contains(rule, name) && !slices.Contains(rule, "all") {
				t.Errorf("%s imports %s, which the map does not allow %s", path, name, pkg)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range allowed {
		if !seen[pkg] {
			t.Errorf("the map lists %s, which is not in the tree", pkg)
		}
	}
}
