package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// field is one key of the configuration.
type field struct {
	key    string // "training.learning_rate"
	python string // the variable it replaces, "" for none
	stages []string
	value  reflect.Value
}

// fields are the keys of a Config in the order of the struct.
func (c *Config) fields() []field { return fieldsOf("", reflect.ValueOf(c).Elem()) }

func fieldsOf(prefix string, v reflect.Value) (all []field) {
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		key := prefix + tag.Get("toml")
		if v.Field(i).Kind() == reflect.Struct {
			all = append(all, fieldsOf(key+".", v.Field(i))...)
			continue
		}
		if v.Field(i).Kind() == reflect.Map {
			continue // its keys are the file's own
		}
		all = append(all, field{key, tag.Get("python"), strings.Fields(tag.Get("stages")), v.Field(i)})
	}
	return all
}

// fieldNamed is the field of a struct for a key of its table.
func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("toml") == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// unknown is the problem of a key that does not exist in its table, with the key that was probably meant.
func unknown(path []string, table reflect.Type) problem {
	key := toml.Key(path).String()
	p := problem{key: key, atKey: true, text: "there is no key " + shown(key, valueLimit)}
	if meant := meant(path, table); meant != "" {
		p.text += "; did you mean " + meant + "?"
	}
	var names []string
	for i := range table.NumField() {
		name := table.Field(i).Tag.Get("toml")
		if kind := table.Field(i).Type.Kind(); kind == reflect.Struct || kind == reflect.Map {
			name = "[" + name + "]"
		}
		names = append(names, name)
	}
	p.allowed = strings.Join(names, ", ")
	if len(path) > 1 {
		p.allowed = "in [" + strings.Join(path[:len(path)-1], ".") + "]: " + p.allowed
	}
	return p
}

// meant is the key a person probably meant: of the same table by spelling, else by the Python pipeline's name for it, else
// the same name in another table. It is "" where none comes near.
func meant(path []string, table reflect.Type) string {
	name := path[len(path)-1]
	best, bestDistance := "", len(name)/3+1
	for i := range table.NumField() {
		candidate := table.Field(i).Tag.Get("toml")
		if d := distance(strings.ToLower(name), candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	if best != "" {
		return best
	}
	all := Default().fields()
	for _, same := range []func(field) bool{
		func(f field) bool { return name != "" && f.python == name },
		func(f field) bool { return f.key[strings.LastIndexByte(f.key, '.')+1:] == name },
	} {
		if i := slices.IndexFunc(all, same); i >= 0 {
			section, key, nested := strings.Cut(all[i].key, ".")
			switch {
			case !nested:
				return section + " (above the first table)"
			case len(path) > 1 && section == path[0]:
				return key
			}
			return key + " in [" + section + "]"
		}
	}
	return ""
}

// distance is the number of single-character edits (Levenshtein, with swaps of neighbours) between two words.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 64 {
		return len(x)
	}
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range y {
		rows[0][j+1] = j + 1
	}
	for i := range x {
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			d := min(rows[i][j+1]+1, rows[i+1][j]+1, rows[i][j]+cost)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				d = min(d, rows[i-1][j-1]+1)
			}
			rows[i+1][j+1] = d
		}
	}
	return rows[len(x)][len(y)]
}
