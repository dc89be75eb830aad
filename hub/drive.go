package hub

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Drive is a folder of the user's Google Drive. It sees only what it made itself, which is all that its scope, drive.file,
// allows; folders of other programs stay unseen, though they may have the same name.
type Drive struct {
	folder string // with slashes
	state  string // folder
	login  login
	api    string // address of the REST calls
	calls  *Client
	ids    map[string]string // of folders, by their path
}

// OpenDrive is the folder that an address such as "gdrive://folder/sub" names. The user's own OAuth client is read from
// QUARTET_DRIVE_CLIENT_ID and QUARTET_DRIVE_CLIENT_SECRET; the token is kept in the user's configuration folder, readable by
// nobody else. show is told the address and the code with which the user lets the program in, once. What an unfinished
// upload needs to go on is kept in state.
func OpenDrive(dest, state string, show func(address, code string)) (*Drive, error) {
	folder, ok := strings.CutPrefix(dest, "gdrive://")
	folder = strings.Trim(folder, "/")
	if !ok || checkPath(folder) != nil {
		return nil, fmt.Errorf("%q names no folder of Google Drive; write it as in gdrive://folder/sub", dest)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return nil, errors.New("there is no place for the token of Google Drive; set HOME or XDG_CONFIG_HOME")
	}
	l := login{id: os.Getenv("QUARTET_DRIVE_CLIENT_ID"), secret: os.Getenv("QUARTET_DRIVE_CLIENT_SECRET"),
		address: "https://oauth2.googleapis.com", file: filepath.Join(config, "quartet", "drive.json"), show: show}
	if l.id == "" || l.secret == "" {
		return nil, errors.New("uploads to Google Drive need an OAuth client of your own, of the kind \"TVs and limited input devices\"; make one at https://console.cloud.google.com/apis/credentials and set QUARTET_DRIVE_CLIENT_ID and QUARTET_DRIVE_CLIENT_SECRET")
	}
	return newDrive(folder, state, "https://www.googleapis.com", l), nil
}

func newDrive(folder, state, api string, l login) *Drive {
	calls := New(Settings{})
	l.calls = calls
	return &Drive{folder: folder, state: state, login: l, api: api, calls: calls, ids: map[string]string{"": "root"}}
}

// String is the address.
func (d *Drive) String() string { return "gdrive://" + d.folder }

// Put sends the file at local under name, in folders that it makes where they are missing, unless a file with the same content
// is there already. add is told the bytes that are there now, less those that were lost.
func (d *Drive) Put(ctx context.Context, name, local string, add func(bytes int64)) error {
	return uploaded(ctx, name, d, d.put(ctx, name, local, add))
}

// Commit does nothing: each file is there once it is put.
func (*Drive) Commit(context.Context) error { return nil }

// Close does nothing: what an unfinished upload has sent stays there for the next one.
func (*Drive) Close() error { return nil }

func (d *Drive) put(ctx context.Context, name, local string, add func(int64)) error {
	if err := checkPath(name); err != nil {
		return err
	}
	f, err := os.Open(local)
	if err != nil {
		return fmt.Errorf("read %s: %w", local, obstacle(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", local, obstacle(err))
	}
	full := path.Join(d.folder, name)
	parent, err := d.make(ctx, path.Dir(full))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	u := &driveUpload{Drive: d, file: f, info: info, size: info.Size(), name: path.Base(full), parent: parent, add: add}
	u.sha256 = sync.OnceValues(func() (string, error) { return u.digest(ctx, sha256.New()) })
	u.md5 = sync.OnceValues(func() (string, error) { return u.digest(ctx, md5.New()) })
	same, err := d.find(ctx, u.name, parent, false)
	if err != nil {
		return err
	}
	for _, i := range same {
		is, err := u.is(i)
		if err != nil {
			return err
		}
		if is {
			add(u.size)
			return u.forget()
		}
	}
	if len(same) > 0 {
		u.id = same[0].ID
	}
	var reading sync.WaitGroup
	reading.Go(func() { u.sha256() }) // while it is sent
	defer reading.Wait()
	defer stop()
	return u.send(ctx)
}

// item is a file or a folder as Drive describes it.
type item struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Size   string `json:"size"`
	MD5    string `json:"md5Checksum"`
	SHA256 string `json:"sha256Checksum"`
}

const (
	folderType = "application/vnd.google-apps.folder"
	itemFields = "id,name,size,md5Checksum,sha256Checksum"
)

var itemID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)

// make is the id of a folder, which is made where it is missing.
func (d *Drive) make(ctx context.Context, folder string) (string, error) {
	if folder == "." {
		folder = ""
	}
	if id, ok := d.ids[folder]; ok {
		return id, nil
	}
	parent, err := d.make(ctx, path.Dir(folder))
	if err != nil {
		return "", err
	}
	found, err := d.find(ctx, path.Base(folder), parent, true)
	if err != nil {
		return "", err
	}
	var it item
	if len(found) > 0 {
		it = found[0]
	} else {
		meta := map[string]any{"name": path.Base(folder), "mimeType": folderType, "parents": []string{parent}}
		if err := d.ask(ctx, http.MethodPost, "/drive/v3/files?fields=id", meta, &it); err != nil {
			return "", err
		}
	}
	if !itemID.MatchString(it.ID) {
		return "", errDrive
	}
	d.ids[folder] = it.ID
	return it.ID, nil
}

// find is the files, or the folders, of a name in a folder.
func (d *Drive) find(ctx context.Context, name, parent string, folders bool) ([]item, error) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	relation := "!="
	if folders {
		relation = "="
	}
	q := url.Values{"spaces": {"drive"}, "fields": {"files(" + itemFields + ")"}, "orderBy": {"createdTime"},
		"q": {fmt.Sprintf("name = '%s' and '%s' in parents and mimeType %s '%s' and trashed = false", quote.Replace(name), parent, relation, folderType)}}
	var answer struct{ Files []item }
	if err := d.ask(ctx, http.MethodGet, "/drive/v3/files?"+q.Encode(), nil, &answer); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(answer.Files, func(i item) bool { return i.Name != name || !itemID.MatchString(i.ID) }), nil
}

var errDrive = errors.New("the server answered something that is no answer of Google Drive; check the proxy")

// ask makes a call with a JSON body, if any, and reads its JSON answer.
func (d *Drive) ask(ctx context.Context, method, call string, body, into any) error {
	return d.calls.persist(ctx, func() (bool, error) {
		ctx, stop := context.WithTimeoutCause(ctx, d.calls.stall, temporary{error: errors.New("the server is silent")})
		defer stop()
		resp, err := d.send(ctx, method, d.api+call, body, nil)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false, d.refusal(resp)
		}
		return false, readJSON(resp.Body, into)
	})
}

// readJSON reads an answer of a bounded size.
func readJSON(r io.Reader, into any) error {
	data, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return temporary{error: errors.New("the connection ended within an answer")}
	}
	if json.Unmarshal(data, into) != nil {
		return errDrive
	}
	return nil
}

// send makes one request as the user. A token that is not taken any more is refreshed, once.
func (d *Drive) send(ctx context.Context, method, at string, body any, header http.Header) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	for refreshed := false; ; refreshed = true {
		token, err := d.login.token(ctx, refreshed)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(data))
		if err != nil {
			return nil, errDrive
		}
		if body == nil {
			req.Body, req.ContentLength = http.NoBody, 0
		} else {
			req.Header.Set("Content-Type", "application/json; charset=UTF-8")
		}
		for name, values := range header {
			req.Header[name] = values
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := d.calls.http.Do(req)
		if err != nil {
			return nil, d.calls.broken(ctx, req.URL, err)
		}
		if resp.StatusCode != http.StatusUnauthorized || refreshed {
			return resp, nil
		}
		resp.Body.Close()
	}
}

// refusal words an answer that is no success. Nothing of what the server says comes into it.
func (d *Drive) refusal(resp *http.Response) error {
	var told struct {
		Error struct{ Errors []struct{ Reason string } }
	}
	_ = readJSON(resp.Body, &told) // an answer without a reason has a status still
	reason := ""
	if len(told.Error.Errors) > 0 {
		reason = told.Error.Errors[0].Reason
	}
	wait := temporary{error: fmt.Errorf("the Drive API answered %d", resp.StatusCode), after: d.calls.retryAfter(resp.Header)}
	switch n := resp.StatusCode; {
	case reason == "storageQuotaExceeded", reason == "quotaExceeded":
		return errors.New("the Google Drive is full; free some space or buy more, and run again to go on from here")
	case reason == "rateLimitExceeded", reason == "userRateLimitExceeded":
		return wait
	case reason == "dailyLimitExceeded":
		return errors.New("today's limit of calls is used up; run again tomorrow")
	case reason == "accessNotConfigured":
		return errors.New("the Drive API is not enabled for your OAuth client; enable it at https://console.cloud.google.com/apis/library/drive.googleapis.com")
	case n == http.StatusUnauthorized:
		return fmt.Errorf("the token is not taken any more by Google; remove %s and run again to sign in anew", d.login.file)
	case n == http.StatusForbidden:
		return fmt.Errorf("access is not allowed by Google Drive; remove %s and run again to sign in anew", d.login.file)
	case n == http.StatusRequestTimeout, n == http.StatusTooManyRequests, n >= 500:
		return wait
	default:
		return fmt.Errorf("the Drive API answered %d; run again", n)
	}
}

// driveUpload is one file on its way.
type driveUpload struct {
	*Drive
	file             *os.File
	info             os.FileInfo
	size             int64
	sha256, md5      func() (string, error) // in hexadecimal, computed once
	name, parent, id string                 // id is "" for a new file
	add              func(int64)
	told             int64
}

// digest reads the file.
func (u *driveUpload) digest(ctx context.Context, sum hash.Hash) (string, error) {
	if _, err := io.CopyBuffer(sum, untilDone{ctx, io.NewSectionReader(u.file, 0, u.size)}, make([]byte, 256<<10)); err != nil {
		return "", fmt.Errorf("read %s: %w", u.file.Name(), obstacle(err))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// is tells whether an item is the file.
func (u *driveUpload) is(i item) (bool, error) {
	if i.Size != strconv.FormatInt(u.size, 10) {
		return false, nil
	}
	if i.SHA256 == "" {
		sum, err := u.md5()
		return err == nil && sum == i.MD5, err
	}
	sum, err := u.sha256()
	return err == nil && sum == i.SHA256, err
}

// at tells that the server has the file up to there.
func (u *driveUpload) at(there int64) {
	u.add(there - u.told)
	u.told = there
}

// note is the file in the state folder that holds the address of the upload's session, which is as good as a key for it. Its name is made
// of all that tells the upload from those of other files; the digest of what came is compared besides.
func (u *driveUpload) note() string {
	name := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d\n%d", u.parent, u.name, u.id, u.size, u.info.ModTime().UnixNano()))
	return filepath.Join(u.state, "drive-"+hex.EncodeToString(name[:16]))
}

func (u *driveUpload) forget() error {
	if err := os.Remove(u.note()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", u.note(), obstacle(err))
	}
	return nil
}

// errSession is an upload that the server does not know any more.
var errSession = errors.New("the upload expired")

// send brings the file there in a session, an earlier run's where there is one.
func (u *driveUpload) send(ctx context.Context) error {
	session := u.resumed()
	asked := session == "" // a new session has nothing yet
	var from int64
	return u.calls.persist(ctx, func() (bool, error) {
		if session == "" {
			fresh, err := u.begin(ctx)
			if err != nil {
				return false, err
			}
			session, from, asked = fresh, 0, true
		}
		before := u.told
		for {
			var made *item
			var err error
			sent, start := asked, from
			if asked {
				made, from, err = u.piece(ctx, session, from)
			} else {
				made, from, err = u.piece(ctx, session, -1)
				asked = err == nil
			}
			switch {
			case errors.Is(err, errSession):
				session = ""
				u.at(0)
				return false, temporary{error: err}
			case err != nil:
				asked = false // how much came is not known
				return u.told > before, err
			case made != nil:
				is, err := u.is(*made)
				switch {
				case err != nil:
					return false, err
				case !is:
					return false, errors.Join(errors.New("the content arrived altered; something between here and Google Drive alters it, run again on another network"), u.forget())
				}
				u.at(u.size)
				return true, u.forget()
			}
			u.at(from)
			if sent && from <= start {
				return u.told > before, temporary{error: errors.New("nothing of what was sent was kept by Google Drive")}
			}
		}
	})
}

// resumed is the session that an earlier run began, "" where there is none.
func (u *driveUpload) resumed() string {
	text, err := os.ReadFile(u.note())
	if err != nil || !u.own(string(text)) {
		return ""
	}
	return string(text)
}

// own tells whether an address is one of Drive's.
func (u *driveUpload) own(session string) bool {
	at, err := url.Parse(session)
	home, err2 := url.Parse(u.api)
	return err == nil && err2 == nil && sameHost(at, home)
}

// begin opens a session.
func (u *driveUpload) begin(ctx context.Context) (string, error) {
	method, call, meta := http.MethodPost, "/upload/drive/v3/files", map[string]any{"name": u.name, "parents": []string{u.parent}}
	if u.id != "" {
		method, call, meta = http.MethodPatch, call+"/"+u.id, map[string]any{}
	}
	resp, err := u.Drive.send(ctx, method, u.api+call+"?uploadType=resumable&fields="+itemFields, meta,
		http.Header{"X-Upload-Content-Length": {strconv.FormatInt(u.size, 10)}, "X-Upload-Content-Type": {"application/octet-stream"}})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", u.refusal(resp)
	}
	session := resp.Header.Get("Location")
	if !u.own(session) {
		return "", errDrive
	}
	if err := os.MkdirAll(u.state, 0o700); err != nil {
		return "", fmt.Errorf("make folder %s: %w", u.state, obstacle(err))
	}
	if err := os.WriteFile(u.note(), []byte(session), 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", u.note(), obstacle(err))
	}
	return session, nil
}

var kept = regexp.MustCompile(`^bytes=0-(\d{1,18})$`)

// piece sends the file from an offset on, or asks where to go on where from is below 0. It returns the file that was made of
// it, or where to go on.
func (u *driveUpload) piece(ctx context.Context, session string, from int64) (*item, int64, error) {
	reach := fmt.Sprintf("bytes */%d", u.size)
	body := io.NewSectionReader(u.file, 0, 0)
	if from >= 0 && from < u.size {
		reach = fmt.Sprintf("bytes %d-%d/%d", from, u.size-1, u.size)
		body = io.NewSectionReader(u.file, from, u.size-from)
	}
	count := &section{SectionReader: body, add: func(n int64) { u.add(n) }}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, session, nil)
	if err != nil {
		return nil, 0, errDrive
	}
	if body.Size() > 0 {
		req.Body, req.ContentLength = io.NopCloser(count), body.Size()
	}
	req.Header.Set("Content-Range", reach)
	resp, err := u.calls.http.Do(req)
	count.undo()
	if err != nil {
		return nil, 0, u.calls.broken(ctx, req.URL, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated:
		made := new(item)
		return made, u.size, readJSON(resp.Body, made)
	case http.StatusPermanentRedirect:
		m := kept.FindStringSubmatch(resp.Header.Get("Range"))
		if m == nil {
			return nil, 0, nil
		}
		last, _ := strconv.ParseInt(m[1], 10, 64)
		if last >= u.size || last < from {
			return nil, 0, errDrive
		}
		return nil, last + 1, nil
	case http.StatusNotFound, http.StatusGone:
		return nil, 0, errSession
	default:
		return nil, 0, u.refusal(resp)
	}
}
