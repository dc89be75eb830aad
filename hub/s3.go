package hub

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
)

// S3 is a place in a bucket of S3 or of a server that speaks its protocol. It is safe for concurrent use.
//
// Large files go in parts. What a killed upload has sent is taken as sent by the next one, which finds the upload's id in the
// state folder and holds each part's CRC-32C against the file's. The server verifies it of each part, too. Nothing is deleted.
type S3 struct {
	bucket, prefix string
	state          string // folder
	client         *s3.Client
	part           int64 // bytes of a part; larger where a file would have too many
	workers        int   // parts sent at once
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// OpenS3 is the place that an address such as "s3://bucket/prefix" names, with the credentials, region and endpoint of the
// AWS tools' variables and files. Path-style addresses are used where the variable AWS_S3_PATH_STYLE is "1", and with any
// endpoint of its own (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL). What an unfinished upload needs to go on is kept in state.
func OpenS3(ctx context.Context, dest, state string) (*S3, error) {
	return openS3(ctx, dest, state, longestSilence)
}

func openS3(ctx context.Context, dest, state string, silence time.Duration) (*S3, error) {
	rest, ok := strings.CutPrefix(dest, "s3://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	prefix = strings.Trim(prefix, "/")
	if !ok || !bucketName.MatchString(bucket) || prefix != "" && checkPath(prefix) != nil {
		return nil, fmt.Errorf("%q names no place in a bucket; write it as in s3://bucket/prefix", dest)
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, errors.New("the AWS settings cannot be read; check ~/.aws/config, ~/.aws/credentials and AWS_PROFILE")
	}
	own := os.Getenv("AWS_ENDPOINT_URL_S3") != "" || os.Getenv("AWS_ENDPOINT_URL") != ""
	switch {
	case cfg.Region == "" && own:
		cfg.Region = "us-east-1"
	case cfg.Region == "":
		return nil, errors.New("no AWS region is set; set AWS_REGION to the bucket's, as in eu-central-1")
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errors.New("no AWS credentials are found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure`")
	}
	if cfg.RetryMaxAttempts == 0 { // AWS_MAX_ATTEMPTS is not set
		cfg.RetryMaxAttempts = 6
	}
	transport, ok := cfg.HTTPClient.(*awshttp.BuildableClient) // with the certificates of AWS_CA_BUNDLE
	if !ok {
		transport = awshttp.NewBuildableClient()
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = &http.Client{
			Transport: watch{transport.GetTransport(), silence, longestThinking},
			CheckRedirect: func(r *http.Request, _ []*http.Request) error { // as the SDK's own client does
				if c := r.Response.StatusCode; c == http.StatusTemporaryRedirect || c == http.StatusPermanentRedirect {
					return nil
				}
				return http.ErrUseLastResponse
			},
		}
		o.UsePathStyle = own || os.Getenv("AWS_S3_PATH_STYLE") == "1"
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ContinueHeaderThresholdBytes = 256 << 10 // a refusal is read rather than lost in a broken connection
	})
	return &S3{bucket: bucket, prefix: prefix, state: state, client: client, part: 8 << 20, workers: 3}, nil
}

// String is the address.
func (s *S3) String() string { return strings.TrimSuffix("s3://"+s.bucket+"/"+s.prefix, "/") }

// Put sends the file at path under name, unless a file with the same content is there already. add is told the bytes that are
// there now, less those that were lost; several goroutines call it.
func (s *S3) Put(ctx context.Context, name, path string, add func(bytes int64)) error {
	return uploaded(ctx, name, s, s.put(ctx, name, path, add))
}

// Commit does nothing: each object is there once it is put.
func (*S3) Commit(context.Context) error { return nil }

// Close does nothing: what an unfinished upload has sent stays there for the next one.
func (*S3) Close() error { return nil }

func (s *S3) put(ctx context.Context, name, local string, add func(int64)) error {
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
	const most, mebibyte = 10_000, 1 << 20 // S3's limit of parts
	part := max(s.part, (info.Size()/most/mebibyte+1)*mebibyte)
	if info.Size() <= most*s.part {
		part = s.part
	}
	o := &object{S3: s, file: f, info: info, part: part, key: path.Join(s.prefix, name), add: add}
	return o.send(ctx)
}

// object is one file on its way.
type object struct {
	*S3
	file *os.File
	info os.FileInfo
	part int64 // bytes
	key  string
	add  func(int64)
}

func (o *object) size() int64 { return o.info.Size() }

// parts is how many the file has, one where it is empty.
func (o *object) parts() int { return int(max(1, (o.size()+o.part-1)/o.part)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C of a part as S3 writes it. The part is read in pieces that stay in the processor's caches.
func (o *object) checksum(i int) (string, error) {
	sum := crc32.New(castagnoli)
	at := int64(i) * o.part
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(o.file, at, min(o.part, o.size()-at)), make([]byte, 256<<10)); err != nil {
		return "", fmt.Errorf("read %s: %w", o.file.Name(), obstacle(err))
	}
	return base64.StdEncoding.EncodeToString(sum.Sum(nil)), nil
}

// whole is the checksum that S3 gives the object: that of the only part, or of the parts' checksums.
func (o *object) whole(ctx context.Context) (string, error) {
	if o.parts() == 1 {
		return o.checksum(0)
	}
	parts := make([]types.CompletedPart, o.parts())
	for i := range parts {
		sum, err := o.checksum(i)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return "", err
		}
		parts[i].ChecksumCRC32C = &sum
	}
	return composite(parts), nil
}

// composite is the checksum of the parts' checksums, which were computed here.
func composite(parts []types.CompletedPart) string {
	all := crc32.New(castagnoli)
	for _, p := range parts {
		sum, _ := base64.StdEncoding.DecodeString(*p.ChecksumCRC32C)
		all.Write(sum)
	}
	return fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(all.Sum(nil)), len(parts))
}

// send makes the object what the file is.
func (o *object) send(ctx context.Context) error {
	there, err := o.there(ctx)
	if err != nil {
		return err
	}
	if there {
		o.add(o.size())
		return o.forget()
	}
	if o.parts() == 1 {
		return o.sendWhole(ctx)
	}
	id, sent, err := o.resume(ctx)
	if err != nil {
		return err
	}
	if err := o.sendParts(ctx, id, sent); err != nil {
		return err
	}
	return o.complete(ctx, id, sent)
}

// there tells whether the object is the file already. Any refusal is a no, for users who may write but not read, and because
// such an answer has no reason in it: what is sent next brings one.
func (o *object) there(ctx context.Context) (bool, error) {
	head, err := o.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.bucket, Key: &o.key, ChecksumMode: types.ChecksumModeEnabled})
	if n := status(err); err != nil && n >= 400 && n < 500 {
		return false, nil
	}
	if err != nil {
		return false, o.explain(err)
	}
	if aws.ToInt64(head.ContentLength) != o.size() || head.ChecksumCRC32C == nil {
		return false, nil
	}
	sum, err := o.whole(ctx)
	return err == nil && sameSum(*head.ChecksumCRC32C, sum), err
}

// sameSum compares checksums of objects. Some servers leave out of how many parts.
func sameSum(a, b string) bool {
	a, n, _ := strings.Cut(a, "-")
	b, m, _ := strings.Cut(b, "-")
	return a == b && (n == "" || m == "" || n == m)
}

// unsigned leaves the content out of the signature, so that it is read once; its checksum is a header, which is signed.
func unsigned(options *s3.Options) {
	options.APIOptions = append(options.APIOptions, func(stack *middleware.Stack) error {
		return v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware(stack)
	})
}

func (o *object) sendWhole(ctx context.Context) error {
	sum, err := o.checksum(0)
	if err != nil {
		return err
	}
	body := o.section(0)
	_, err = o.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &o.bucket, Key: &o.key, Body: body, ContentLength: aws.Int64(o.size()), ChecksumCRC32C: &sum}, unsigned)
	if err != nil {
		body.undo()
	}
	return o.refused(ctx, err)
}

// note is the file in the state folder that holds the id of the object's upload. Its name is made of all that tells the upload from
// those of other files; the parts that are there are compared besides.
func (o *object) note() string {
	name := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%d\n%d", o.bucket, o.key, o.size(), o.info.ModTime().UnixNano(), o.part))
	return filepath.Join(o.state, "s3-"+hex.EncodeToString(name[:16]))
}

func (o *object) forget() error {
	if err := os.Remove(o.note()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", o.note(), obstacle(err))
	}
	return nil
}

// resume finds the upload that an earlier run began, or begins one. sent are its parts that are there, by their index.
func (o *object) resume(ctx context.Context) (id string, sent []types.CompletedPart, err error) {
	sent = make([]types.CompletedPart, o.parts())
	if text, err := os.ReadFile(o.note()); err == nil {
		id = strings.TrimSpace(string(text))
	}
	if id != "" {
		there, err := o.list(ctx, id)
		if err == nil {
			return id, sent, o.compare(there, sent)
		}
		if code(err) != "NoSuchUpload" {
			return id, sent, o.explain(err)
		}
	}
	begun, err := o.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &o.bucket, Key: &o.key,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c, ChecksumType: types.ChecksumTypeComposite})
	if err != nil {
		return "", nil, o.explain(err)
	}
	id = aws.ToString(begun.UploadId)
	if err := os.MkdirAll(o.state, 0o700); err != nil {
		return "", nil, fmt.Errorf("make folder %s: %w", o.state, obstacle(err))
	}
	if err := os.WriteFile(o.note(), []byte(id+"\n"), 0o600); err != nil {
		return "", nil, fmt.Errorf("write %s: %w", o.note(), obstacle(err))
	}
	return id, sent, nil
}

// list tells the parts of an upload that are there.
func (o *object) list(ctx context.Context, id string) (there []types.Part, err error) {
	pages := s3.NewListPartsPaginator(o.client, &s3.ListPartsInput{Bucket: &o.bucket, Key: &o.key, UploadId: &id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		there = append(there, page.Parts...)
	}
	return there, nil
}

// compare takes those parts as sent that have the file's content.
func (o *object) compare(there []types.Part, sent []types.CompletedPart) error {
	for _, p := range there {
		i := int(aws.ToInt32(p.PartNumber)) - 1
		if i < 0 || i >= len(sent) || p.ChecksumCRC32C == nil {
			continue
		}
		sum, err := o.checksum(i)
		if err != nil {
			return err
		}
		if sum == *p.ChecksumCRC32C {
			sent[i] = completed(i, p.ETag, sum)
		}
	}
	return nil
}

func completed(i int, tag *string, sum string) types.CompletedPart {
	return types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: tag, ChecksumCRC32C: &sum}
}

// sendParts sends the parts that are not there.
func (o *object) sendParts(ctx context.Context, id string, sent []types.CompletedPart) error {
	var missing []int
	for i := range sent {
		if sent[i].PartNumber == nil {
			missing = append(missing, i)
		} else {
			o.add(o.section(i).Size())
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan int)
	var group sync.WaitGroup
	for range min(o.workers, len(missing)) {
		group.Go(func() {
			for i := range todo {
				sum, err := o.checksum(i)
				if err != nil {
					cancel(err)
					return
				}
				body := o.section(i)
				done, err := o.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: &o.bucket, Key: &o.key, UploadId: &id, PartNumber: aws.Int32(int32(i + 1)),
					Body: body, ContentLength: aws.Int64(body.Size()), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c, ChecksumCRC32C: &sum}, unsigned)
				if err != nil {
					body.undo()
					cancel(o.refused(ctx, err))
					return
				}
				sent[i] = completed(i, done.ETag, sum)
			}
		})
	}
	for _, i := range missing {
		select {
		case todo <- i:
		case <-ctx.Done():
		}
	}
	close(todo)
	group.Wait()
	return context.Cause(ctx)
}

// complete makes the parts an object, whose checksum must be that of the parts' checksums.
func (o *object) complete(ctx context.Context, id string, sent []types.CompletedPart) error {
	done, err := o.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &o.bucket, Key: &o.key, UploadId: &id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: sent}})
	if err != nil { // the answer to a first try may have been lost
		if there, _ := o.there(ctx); !there {
			return o.explain(err)
		}
	}
	if err == nil && done.ChecksumCRC32C != nil && !sameSum(*done.ChecksumCRC32C, composite(sent)) {
		return errors.Join(errS3Sum, o.forget())
	}
	return o.forget()
}

// section is a part of the file, which may be sent several times and tells how much of it has gone.
func (o *object) section(i int) *section {
	at := int64(i) * o.part
	return &section{SectionReader: io.NewSectionReader(o.file, at, min(o.part, o.size()-at)), add: o.add}
}

type section struct {
	*io.SectionReader
	gone atomic.Int64
	add  func(int64)
}

func (s *section) Read(p []byte) (int, error) {
	n, err := s.SectionReader.Read(p)
	s.gone.Add(int64(n))
	s.add(int64(n))
	return n, err
}

func (s *section) Seek(offset int64, whence int) (int64, error) {
	at, err := s.SectionReader.Seek(offset, whence)
	if whence == io.SeekStart && offset == 0 {
		s.undo()
	}
	return at, err
}

// undo takes back what was told.
func (s *section) undo() {
	s.add(-s.gone.Swap(0))
}

var errS3Sum = errors.New("the content arrived altered; something between here and the bucket alters it, run again on another network")

// status is the HTTP status of an error, 0 where there was no answer.
func status(err error) int {
	var answered interface{ HTTPStatusCode() int }
	if errors.As(err, &answered) {
		return answered.HTTPStatusCode()
	}
	return 0
}

// code is S3's name of an error.
func code(err error) string {
	var named interface{ ErrorCode() string }
	if errors.As(err, &named) {
		return named.ErrorCode()
	}
	return ""
}

var errorCode = regexp.MustCompile(`^[A-Za-z0-9.]{1,60}$`)

// refused is explain for a request that had content. A server may answer it early and hang up, and then what is still being sent breaks
// the connection before the answer is read; a request without content, for the parts of an upload that never was, brings the same refusal.
func (o *object) refused(ctx context.Context, err error) error {
	var quiet silent
	if err == nil || status(err) != 0 || errors.As(err, &quiet) || ctx.Err() != nil {
		return o.explain(err)
	}
	once := func(options *s3.Options) { options.RetryMaxAttempts = 1 }
	_, again := o.client.ListParts(ctx, &s3.ListPartsInput{Bucket: &o.bucket, Key: &o.key, UploadId: aws.String("none")}, once)
	if n := status(again); n >= 400 && n < 500 && code(again) != "NoSuchUpload" {
		return o.explain(again)
	}
	return o.explain(err)
}

// explain words an error of the SDK, whose own text has addresses and what the server said.
func (o *object) explain(err error) error {
	if err == nil {
		return nil
	}
	name := code(err)
	switch name {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound":
		return errors.New("the server does not take the credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile that AWS_PROFILE names")
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return errors.New("the credentials have expired; get new ones, as with `aws sso login`, and run again")
	case "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s; check its name, or make it with `aws s3 mb s3://%s`", o.bucket, o.bucket)
	case "AccessDenied", "AllAccessDisabled":
		return fmt.Errorf("the credentials may not write there; they need s3:PutObject and s3:ListMultipartUploadParts on %s", o.bucket)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return fmt.Errorf("the bucket %s is of another region; set AWS_REGION to it", o.bucket)
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return errS3Sum
	case "RequestTimeTooSkewed":
		return errors.New("this machine's clock is wrong; set it and run again")
	}
	var failed interface{ Timeout() bool }
	var quiet silent
	switch n := status(err); {
	case errors.As(err, &quiet):
		return fmt.Errorf("%w; run again to go on from here", quiet)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return context.Canceled
	case n == http.StatusMovedPermanently:
		return fmt.Errorf("the bucket %s is of another region; set AWS_REGION to it", o.bucket)
	case errorCode.MatchString(name) && n != 0:
		return fmt.Errorf("the server answered %d %s; run again to go on from here", n, name)
	case n != 0:
		return fmt.Errorf("the server answered %d; run again to go on from here", n)
	case errors.As(err, &failed):
		return errors.New("the connection failed; check the network and AWS_ENDPOINT_URL, and run again to go on from here")
	}
	return errors.New("the request failed without an answer; check the network and AWS_ENDPOINT_URL, and run again to go on from here")
}
