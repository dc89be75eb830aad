package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Value is one key with its value as a form shows it.
type Value struct {
	Key    string   // "training.learning_rate"
	Text   string   // TOML, but for a string of one line, which stands without quotes
	Stages []string // whose output depends on it
}

// Values are the keys of a configuration file in the order of Config, those it leaves out with their defaults. A file that
// cannot be read has the defaults, and the error is Parse's.
func Values(name string, text []byte) ([]Value, error) {
	c, err := Parse(name, text)
	if err != nil {
		c = Default()
	}
	var all []Value
	for _, f := range c.fields() {
		all = append(all, Value{f.key, shownValue(f.value), f.stages})
	}
	return all, err
}

// shownValue is a value as a form shows it.
func shownValue(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); !strings.ContainsAny(s, "\n\"") {
			return s
		}
		return strconv.Quote(v.String())
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.Slice:
		var quoted []string
		for i := range v.Len() {
			quoted = append(quoted, strconv.Quote(v.Index(i).String()))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// Set is the text of a configuration file with one key's value replaced, and every other byte as it was. A key that the file
// leaves out is added to its table. The value is as Values gives it; one that Parse refuses is an *Error, and a file that
// cannot be parsed already is refused as it is.
func Set(name string, text []byte, key, value string) ([]byte, error) {
	c := Default()
	var kind reflect.Kind
	for _, f := range c.fields() {
		if f.key == key {
			kind = f.value.Kind()
		}
	}
	if kind == reflect.Invalid {
		return nil, fmt.Errorf("set %s: there is no such key", shown(key, valueLimit))
	}
	value = strings.TrimSpace(value)
	if quoted := strings.HasPrefix(value, `"`) || strings.HasPrefix(value, "'"); kind == reflect.String && !quoted {
		value = tomlString(value)
	}
	if strings.ContainsAny(value, "\r\n") {
		return nil, fmt.Errorf("set %s: a value of one line is needed; write \\n for a line end", key)
	}
	var alone map[string]any
	if _, err := toml.Decode("v = "+value, &alone); err != nil || len(alone) != 1 {
		return nil, fmt.Errorf("set %s: %s is not a value of TOML", key, shown(value, valueLimit))
	}
	if _, err := Parse(name, text); err != nil && !strings.Contains(err.Error(), key) {
		return nil, err
	}
	out := insert(string(text), key, value)
	if _, err := Parse(name, []byte(out)); err != nil {
		return nil, err
	}
	return []byte(out), nil
}

// insert puts a value in the place of the former one, or a line for it at the end of its table, or the table at the end.
func insert(text, key, value string) string {
	const mark = "\uFEFF"
	body := strings.TrimPrefix(text, mark)
	head := text[:len(text)-len(body)]
	places, _ := locate(body)
	if at, ok := places[key]; ok {
		return head + body[:at.value.start] + value + body[at.value.end:]
	}
	table, name, nested := strings.Cut(key, ".")
	if !nested {
		return head + key + " = " + value + "\n" + body
	}
	entry := name + " = " + value + "\n"
	if at, ok := places[table]; ok {
		if end := strings.IndexByte(body[at.value.end:], '\n'); end >= 0 {
			end += at.value.end + 1
			return head + body[:end] + entry + body[end:]
		}
		return head + body + "\n" + entry
	}
	if body != "" && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	return head + body + "\n[" + table + "]\n" + entry
}

// tomlString is a text as a basic string of TOML.
func tomlString(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}
