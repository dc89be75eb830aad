package parquet

import (
	"encoding/binary"
	"errors"
)

// value is a value of Thrift's compact protocol: a number or truth (n), bytes, a list, or a struct's fields.
type value struct {
	n      int64
	bytes  []byte
	list   []value
	fields []field
}

type field struct {
	id int64
	value
}

// get is a struct's field; the zero value stands for one that is not there, as in Parquet's structs.
func (v value) get(id int64) value {
	for _, f := range v.fields {
		if f.id == id {
			return f.value
		}
	}
	return value{}
}

// has reports whether a struct has a field.
func (v value) has(id int64) bool {
	for _, f := range v.fields {
		if f.id == id {
			return true
		}
	}
	return false
}

// maxDepth bounds the nesting of structs and lists; Parquet's go to 7.
const maxDepth = 16

var errThrift = errors.New("its metadata is damaged")

// decoder reads one struct. What it makes is bounded by a small multiple of the bytes that are there: a list's claimed
// length is held against them first.
type decoder struct {
	data []byte
	pos  int
	err  error
}

// decode reads the struct at the start of data and returns how many bytes it takes.
func decode(data []byte) (value, int, error) {
	d := &decoder{data: data}
	v := d.structure(0)
	return v, d.pos, d.err
}

func (d *decoder) fail() { d.err = errThrift }

func (d *decoder) byte() byte {
	if d.err != nil || d.pos >= len(d.data) {
		d.fail()
		return 0
	}
	d.pos++
	return d.data[d.pos-1]
}

func (d *decoder) unsigned() uint64 {
	if d.err != nil {
		return 0
	}
	n, size := binary.Uvarint(d.data[d.pos:])
	if size <= 0 {
		d.fail()
		return 0
	}
	d.pos += size
	return n
}

func (d *decoder) signed() int64 {
	n := d.unsigned()
	return int64(n>>1) ^ -int64(n&1)
}

// take is the next n bytes.
func (d *decoder) take(n uint64) []byte {
	if d.err != nil || n > uint64(len(d.data)-d.pos) {
		d.fail()
		return nil
	}
	d.pos += int(n)
	return d.data[d.pos-int(n) : d.pos]
}

func (d *decoder) structure(depth int) (v value) {
	if depth > maxDepth {
		d.fail()
	}
	id := int64(0)
	for d.err == nil {
		head := d.byte()
		if head == 0 {
			return v
		}
		if delta := int64(head >> 4); delta > 0 {
			id += delta
		} else {
			id = d.signed()
		}
		v.fields = append(v.fields, field{id, d.value(head&15, depth, false)})
	}
	return v
}

// value reads a value of one of the protocol's types.
func (d *decoder) value(kind byte, depth int, inList bool) (v value) {
	switch kind {
	case 1, 2: // true, false; a byte of its own in a list
		v.n = int64(2 - kind)
		if inList {
			v.n = int64(d.byte() & 1)
		}
	case 3:
		v.n = int64(int8(d.byte()))
	case 4, 5, 6:
		v.n = d.signed()
	case 7:
		d.take(8)
	case 8:
		v.bytes = d.take(d.unsigned())
	case 9, 10:
		head := d.byte()
		n := uint64(head >> 4)
		if n == 15 {
			n = d.unsigned()
		}
		if depth > maxDepth || n > uint64(len(d.data)-d.pos) { // an element takes a byte or more
			d.fail()
			return v
		}
		for range n {
			if d.err != nil {
				return v
			}
			v.list = append(v.list, d.value(head&15, depth+1, true))
		}
	case 12:
		return d.structure(depth + 1)
	default:
		d.fail()
	}
	return v
}
