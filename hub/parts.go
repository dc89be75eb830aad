package hub

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// What lies beside a blob that is not whole yet.
const (
	contentSuffix = ".content.incomplete" // the content, with holes where it is still missing
	partsSuffix   = ".parts.incomplete"   // how far each part has come
)

// line is the bytes of one number in a file of parts.
const line = 20

// parts is a file on its way and how far each of its parts has come. The numbers are lines of one length: the part's size,
// then the bytes that are there of each part. A part's number is written after its bytes, so a killed process
// leaves a number that is right or too small.
type parts struct {
	content, numbers *os.File
	size, part       int64
	done             []int64 // bytes
	resumed          bool    // an earlier run left something
}

// openParts goes on with what an earlier run left beside a blob, or starts anew with parts of the given size.
func openParts(blob string, size, part int64) (*parts, error) {
	p := &parts{size: size}
	if p.reopen(blob) {
		return p, nil
	}
	p.close()
	if err := dropParts(blob); err != nil {
		return nil, err
	}
	if err := p.create(blob, part); err != nil {
		p.close()
		return nil, fmt.Errorf("write %s: %w", blob+contentSuffix, inCache(err))
	}
	return p, nil
}

func (p *parts) reopen(blob string) bool {
	text, err := os.ReadFile(blob + partsSuffix)
	if err != nil || len(text) < line {
		return false
	}
	var numbers []int64
	for ; len(text) >= line; text = text[line:] {
		n, err := strconv.ParseInt(string(bytes.TrimLeft(text[:line-1], "0")), 10, 64)
		if err != nil || n < 0 {
			n = 0
		}
		numbers = append(numbers, n)
	}
	p.part, p.done = numbers[0], numbers[1:]
	if p.part <= 0 || len(p.done) != count(p.size, p.part) {
		return false
	}
	for i, n := range p.done {
		if n > p.length(i) {
			return false
		}
		p.resumed = p.resumed || n > 0
	}
	if p.content, err = os.OpenFile(blob+contentSuffix, os.O_RDWR, 0); err != nil {
		return false
	}
	if info, err := p.content.Stat(); err != nil || info.Size() != p.size {
		return false
	}
	p.numbers, err = os.OpenFile(blob+partsSuffix, os.O_RDWR, 0)
	return err == nil
}

func (p *parts) create(blob string, part int64) (err error) {
	p.part, p.done, p.resumed = part, make([]int64, count(p.size, part)), false
	if p.content, err = os.OpenFile(blob+contentSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return err
	}
	if err := p.content.Truncate(p.size); err != nil {
		return err
	}
	if p.numbers, err = os.OpenFile(blob+partsSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%0*d\n", line-1, part)
	for range p.done {
		fmt.Fprintf(&text, "%0*d\n", line-1, 0)
	}
	_, err = p.numbers.Write(text.Bytes())
	return err
}

// count is how many parts a file has.
func count(size, part int64) int { return int((size + part - 1) / part) }

// length is the bytes of a part.
func (p *parts) length(i int) int64 { return min(p.part, p.size-int64(i)*p.part) }

// write puts data where part i has come to and records on disk that it has come further, but not yet in done.
func (p *parts) write(i int, data []byte) error {
	if _, err := p.content.WriteAt(data, int64(i)*p.part+p.done[i]); err != nil {
		return fmt.Errorf("write %s: %w", p.content.Name(), inCache(err))
	}
	return p.record(i, p.done[i]+int64(len(data)))
}

// record writes down how far part i has come.
func (p *parts) record(i int, done int64) error {
	if _, err := p.numbers.WriteAt(fmt.Appendf(nil, "%0*d\n", line-1, done), int64(i+1)*line); err != nil {
		return fmt.Errorf("write %s: %w", p.numbers.Name(), inCache(err))
	}
	return nil
}

// finish gives the content its name.
func (p *parts) finish(blob string) error {
	if err := p.content.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", p.content.Name(), inCache(err))
	}
	if err := os.Rename(p.content.Name(), blob); err != nil {
		return fmt.Errorf("write %s: %w", blob, inCache(err))
	}
	return dropParts(blob)
}

func (p *parts) close() {
	for _, f := range []*os.File{p.content, p.numbers} {
		if f != nil {
			f.Close()
		}
	}
}

// dropParts removes what lies beside a blob.
func dropParts(blob string) error {
	for _, suffix := range []string{partsSuffix, contentSuffix} {
		if err := os.Remove(blob + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", blob+suffix, inCache(err))
		}
	}
	return nil
}
