package gateway

import "time"

// StoreReport is what `longhaul store stats` shows.
type StoreReport struct {
	Dir    string      `json:"dir,omitempty" doc:"directory below which the stores are on disk; without it nothing is kept there"`
	Peers  []PeerStore `json:"peers" doc:"what this site and each peer both hold, for each tenant"`
	Images ImageStore  `json:"images" doc:"what this site has of its own: templates, ISO files and disks"`
	Total  StoreStatus `json:"total" doc:"all peers and images together"`

	Left []LeftStore `json:"left,omitempty" doc:"stores on disk of tenants that the config does not have, and of sites that are not in it and have not dialed in since the start; no budget counts them, and nothing uses them now"`
}

// LeftStore is a store on disk whose peer or tenant is not known here: it may still dial in.
type LeftStore struct {
	Site   string `json:"site" doc:"name of the peer's site"`
	Tenant string `json:"tenant,omitempty" doc:"tenant whose content it is; the default tenant has no name"`
	Dir    string `json:"dir" doc:"its directory; to free the disk, remove it: should the site or tenant come back, its content crosses again"`
	Disk   int64  `json:"disk_bytes" doc:"bytes on disk"`
}

// PeerStore is what this site and one peer both hold for one tenant.
type PeerStore struct {
	Site          string `json:"site" doc:"name of the peer's site"`
	Tenant        string `json:"tenant,omitempty" doc:"tenant whose content it is; the default tenant has no name"`
	Agreed        bool   `json:"agreed" doc:"the two have told each other what they hold since both are up; else pages, segments and disk_bytes are what lies on this site's disk, of which the peer may have less, and all else is 0"`
	Pages         int64  `json:"pages" doc:"pages held"`
	SentPages     int64  `json:"sent_pages" doc:"of these, pages that went to the peer"`
	ReceivedPages int64  `json:"received_pages" doc:"of these, pages that came from the peer"`
	Segments      int64  `json:"segments" doc:"segments of up to 1 MiB that they lie in"`
	Memory        int64  `json:"memory_bytes" doc:"bytes of pages in memory"`
	MemoryBudget  int64  `json:"memory_budget_bytes" doc:"bytes of pages that may be in memory"`
	Disk          int64  `json:"disk_bytes" doc:"bytes of pages on disk"`
	Budget        int64  `json:"budget_bytes" doc:"bytes of pages that may be held"`
	Index         int64  `json:"index_bytes" doc:"bytes of memory for finding equal pages"`
	Anchors       int64  `json:"anchor_bytes" doc:"bytes of memory for finding pages that resemble each other"`
	Hits          int64  `json:"hits" doc:"pages that crossed as references since the two agreed, either way"`
	Claims        int64  `json:"claims" doc:"pages that crossed as hashes because the other end had them from elsewhere, either way"`
	Hints         int64  `json:"hints" doc:"pages that the peer has told to have from elsewhere"`
	Evicted       int64  `json:"evicted_segments" doc:"segments that made room for others"`
	Damaged       int64  `json:"damaged_pages" doc:"pages that were found to be lost or rotten; they cross again"`
}

// ImageStore is what this site has of its own.
type ImageStore struct {
	Pages    int64    `json:"pages" doc:"different pages held"`
	Segments int64    `json:"segments" doc:"segments of up to 1 MiB that they lie in"`
	Disk     int64    `json:"disk_bytes" doc:"bytes of pages on disk"`
	Budget   int64    `json:"budget_bytes" doc:"bytes of pages that may be held"`
	Index    int64    `json:"index_bytes" doc:"bytes of memory for finding pages"`
	Hits     int64    `json:"hits" doc:"pages that a peer sent as hashes and that were found here"`
	Evicted  int64    `json:"evicted_segments" doc:"segments that made room for others"`
	Damaged  int64    `json:"damaged_pages" doc:"pages that were found to be lost or rotten; seed their image again"`
	Dirs     []string `json:"dirs" doc:"directories that the config keeps seeded"`
}

// SeedRequest asks for images to be seeded.
type SeedRequest struct {
	Sources  []string `json:"sources" doc:"files and directories of the gateway's host by absolute path, and exports of NBD servers, nbd://HOST[:PORT]/EXPORT" minItems:"1" maxItems:"64" example:"[\"/srv/templates/debian-12.qcow2\"]"`
	Rate     int64    `json:"rate_bps,omitempty" doc:"cap of what crosses to each peer, in bits per second; 0 for the config's" minimum:"0"`
	ReadRate int64    `json:"read_rate_bps,omitempty" doc:"bound on what is read of the images, in bits per second; 0 for the config's" minimum:"0"`
	Local    bool     `json:"local,omitempty" doc:"send nothing: peers that have the same pages agree on them when one is needed"`
}

// TaskState is where a task on the store stands.
type TaskState string

// The states of a task.
const (
	TaskRunning TaskState = "running"
	TaskDone    TaskState = "done"
	TaskFailed  TaskState = "failed"  // Error says why; what was done stays done
	TaskAborted TaskState = "aborted" // by an operator; a verification also by the end of the gateway
)

// Kinds of task.
const (
	TaskSeed   = "seed"
	TaskVerify = "verify"
)

// StoreTask is work on the content store that takes its time.
type StoreTask struct {
	ID      string     `json:"id" doc:"identifier of the task"`
	Kind    string     `json:"kind" doc:"seed or verify" enum:"seed,verify"`
	Sources []string   `json:"sources" doc:"what is seeded"`
	State   TaskState  `json:"state" doc:"where it stands" enum:"running,done,failed,aborted"`
	Phase   string     `json:"phase" doc:"what is being done now, in words"`
	Started time.Time  `json:"started" doc:"when it was asked for"`
	Ended   *time.Time `json:"ended,omitempty" doc:"when it ended"`
	Error   string     `json:"error,omitempty" doc:"why it failed, in one line"`

	Total    int64 `json:"total_bytes" doc:"bytes to read, about; 0 while not known"`
	Done     int64 `json:"done_bytes" doc:"bytes read, now or before, or known to be zero"`
	Before   int64 `json:"before_bytes" doc:"of these, bytes that were read before, by hand or for a directory of the config, and are not read again: nothing has changed since"`
	Files    int   `json:"files" doc:"images read whole, now or before"`
	ReadRate int64 `json:"read_rate_bps" doc:"bound on what is read, in bits per second; 0 for none"`
	Pages    int64 `json:"pages" doc:"pages met that are not zero"`
	Fresh    int64 `json:"fresh_pages" doc:"of these, pages that were not here before"`

	Segments int64 `json:"segments" doc:"segments verified"`
	Damaged  int64 `json:"damaged_pages" doc:"pages found damaged by a verification"`
	Dropped  int64 `json:"dropped_segments" doc:"segments that were dropped for that"`
	Mended   int64 `json:"mended_segments" doc:"segments that were written anew instead, since memory had them whole"`

	Peers []TaskPeer `json:"peers" doc:"how far the content is at each peer"`
}

// TaskPeer is how far what is seeded is at one peer.
type TaskPeer struct {
	Site   string `json:"site" doc:"name of the peer's site"`
	State  string `json:"state" doc:"waiting, sending, done, failed or away" enum:"waiting,sending,done,failed,away"`
	Total  int64  `json:"total_bytes" doc:"bytes of pages that the two did not both hold"`
	Left   int64  `json:"left_bytes" doc:"of these, bytes that have not been sent yet"`
	Claims int64  `json:"claims" doc:"pages that went as hashes, because the peer has them as well"`
	Sent   int64  `json:"sent_pages" doc:"pages that went in full or as a change of others"`
	Wire   int64  `json:"wire_bytes" doc:"bytes sent on the WAN for that, without packet headers"`
	Note   string `json:"note,omitempty" doc:"what stands in the way, or was left out"`
}
