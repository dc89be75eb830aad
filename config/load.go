package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxBytes bounds a configuration file.
const maxBytes = 256 << 10

// problem is a mistake before its place is known.
type problem struct {
	key     string // whose place it is; an array element as "lora.target_modules[1]"
	atKey   bool   // the key itself is wrong, not its value
	text    string
	allowed string
}

// Load reads and checks the file at path. A mistake in it is an *Error; where there is no file the error is fs.ErrNotExist.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open %s: there is no configuration here; copy the project's config.toml, or name another workspace: %w", shown(path, nameLimit), fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", shown(path, nameLimit), unwrapPath(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", shown(path, nameLimit), unwrapPath(err))
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("read %s: the file is larger than %d KiB; is it a configuration?", shown(path, nameLimit), maxBytes>>10)
	}
	return Parse(path, data)
}

func unwrapPath(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Parse decodes and checks the text of a configuration file. The name stands in errors, and its folder is the workspace
// that relative paths are held against. A mistake is an *Error, the first one in the file.
func Parse(name string, data []byte) (*Config, error) {
	text := strings.TrimPrefix(string(data), "\uFEFF")
	if i := invalidUTF8(text); i >= 0 {
		return nil, errorAt(name, text, span{i, i + 1}, problem{text: "the file is not UTF-8 text", allowed: "a TOML file, saved as UTF-8"})
	}
	places, refused := locate(text)
	if refused != nil {
		return nil, errorAt(name, text, *refused, problem{text: "a key is too long, or nested too deeply", allowed: "tables of plain keys, as in config.toml"})
	}
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		return nil, syntaxError(name, text, err)
	}

	d := decoder{places: places, text: text}
	c := Default()
	d.table(nil, tree, reflect.ValueOf(c).Elem())
	if len(d.problems) == 0 {
		workspace, err := filepath.Abs(filepath.Dir(name))
		if err != nil {
			return nil, fmt.Errorf("find the folder of %s: %w", shown(name, nameLimit), err)
		}
		c.check(workspace, d.report)
	}
	if len(d.problems) == 0 {
		return c, nil
	}
	first := slices.MinFunc(d.problems, func(a, b problem) int { return d.where(a).start - d.where(b).start })
	return nil, errorAt(name, text, d.where(first), first)
}

func invalidUTF8(text string) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// syntaxError is the library's error about a file that is not TOML, in the form of our own.
func syntaxError(name, text string, err error) error {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return fmt.Errorf("parse %s: %w", shown(name, nameLimit), err)
	}
	start := parse.Position.Start
	return errorAt(name, text, span{start, start + parse.Position.Len}, problem{text: shown(parse.Message, messageLimit)})
}

// decoder fills a Config from the decoded file and gathers what is wrong.
type decoder struct {
	places   map[string]place
	text     string
	problems []problem
}

// table fills a struct from a table of the file.
func (d *decoder) table(path []string, table map[string]any, into reflect.Value) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		path := append(path[:len(path):len(path)], name)
		key := toml.Key(path).String()
		field, ok := fieldNamed(into, name)
		if !ok {
			d.problems = append(d.problems, unknown(path, into.Type()))
			continue
		}
		if field.Kind() == reflect.Map {
			d.lists(path, table[name], field)
			continue
		}
		if field.Kind() == reflect.Struct {
			if sub, ok := table[name].(map[string]any); ok {
				d.table(path, sub, field)
			} else {
				d.mistyped(key, table[name], "a table, ["+key+"]")
			}
			continue
		}
		d.value(key, table[name], field)
	}
}

// value fills one field.
func (d *decoder) value(key string, value any, into reflect.Value) {
	switch into.Kind() {
	case reflect.String:
		if s, ok := value.(string); ok {
			into.SetString(s)
		} else {
			d.mistyped(key, value, `a string in quotes, as in "text"`)
		}
	case reflect.Bool:
		if b, ok := value.(bool); ok {
			into.SetBool(b)
		} else {
			d.mistyped(key, value, "true or false, without quotes")
		}
	case reflect.Float64:
		switch n := value.(type) {
		case float64:
			into.SetFloat(n)
		case int64:
			into.SetFloat(float64(n))
		default:
			d.mistyped(key, value, "a number, without quotes")
		}
	case reflect.Int:
		if n, ok := value.(int64); ok && n >= math.MinInt && n <= math.MaxInt {
			into.SetInt(n)
		} else {
			d.mistyped(key, value, "a whole number, without quotes")
		}
	case reflect.Uint64:
		if n, ok := value.(int64); ok && n >= 0 {
			into.SetUint(uint64(n))
		} else if ok {
			d.report("a whole number, 0 or above", key)
		} else {
			d.mistyped(key, value, "a whole number, without quotes")
		}
	case reflect.Slice: // of strings
		list, ok := value.([]any)
		if !ok {
			d.mistyped(key, value, `a list of strings, as in ["one", "two"]`)
			return
		}
		texts := make([]string, len(list))
		for i, e := range list {
			if texts[i], ok = e.(string); !ok {
				d.mistyped(fmt.Sprintf("%s[%d]", key, i), e, `a string in quotes, as in "text"`)
			}
		}
		into.Set(reflect.ValueOf(texts))
	}
}

// lists fills a map from names that are the file's own to lists of strings.
func (d *decoder) lists(path []string, value any, into reflect.Value) {
	table, ok := value.(map[string]any)
	if !ok {
		key := toml.Key(path).String()
		d.mistyped(key, value, "a table, ["+key+"]")
		return
	}
	all := map[string][]string{}
	for name, value := range table {
		list := reflect.New(reflect.TypeFor[[]string]()).Elem()
		d.value(toml.Key(append(path[:len(path):len(path)], name)).String(), value, list)
		all[name] = list.Interface().([]string)
	}
	if len(all) > 0 {
		into.Set(reflect.ValueOf(all))
	}
}

// report notes that a value is not allowed. Of several keys that clash it marks the one that the file gives last.
func (d *decoder) report(allowed string, keys ...string) {
	key := slices.MaxFunc(keys, func(a, b string) int { return d.places[a].value.start - d.places[b].value.start })
	at := d.places[key].value
	d.problems = append(d.problems, problem{key: key, text: key + " cannot be " + shown(d.text[at.start:at.end], valueLimit), allowed: allowed})
}

func (d *decoder) mistyped(key string, value any, allowed string) {
	d.problems = append(d.problems, problem{key: key, text: key + " is " + kindOf(value), allowed: allowed})
}

// where is the place a problem is about.
func (d *decoder) where(p problem) span {
	at := d.places[p.key]
	if p.atKey {
		return at.key
	}
	return at.value
}

func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case bool:
		return "a truth value"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	}
	return "a date"
}
