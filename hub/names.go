package hub

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// device matches the names that stand for devices on some systems, which a cache on a shared disk may meet.
var device = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)

// checkPath refuses a path from a server that could lead out of the folder it is put into, or that is no plain file there.
func checkPath(path string) error {
	switch {
	case path == "" || !filepath.IsLocal(path) || len(path) > 1024:
		return errors.New("it does not lie in the folder")
	case !utf8.ValidString(path), strings.ContainsFunc(path, unicode.IsControl), strings.Contains(path, `\`):
		return errors.New("it has characters that no file name should have")
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "" || part == "." || part == ".." || len(part) > 255:
			return errors.New("it is no plain path")
		case device.MatchString(part):
			return errors.New("it is a device's name")
		}
	}
	return nil
}

// etagName matches the entity tags that may become a file's name in the cache.
var etagName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

// entityTag is a header's tag without its quotes, "" where there is none.
func entityTag(header string) (string, error) {
	tag := strings.Trim(strings.TrimPrefix(strings.TrimSpace(header), "W/"), `"`)
	if tag != "" && !etagName.MatchString(tag) {
		return "", fmt.Errorf("the server tags it %q, which no file in the cache can be called", tag)
	}
	return tag, nil
}

var digestName = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
