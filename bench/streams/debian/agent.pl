#!/usr/bin/perl
# The work of a Debian guest of bench/streams. It fills the services once,
# reports "ready" on the second serial line, and then obeys "work PERCENT" and "rest".
# What it writes follows from two seeds: what all guests have in common, as
# servers of one application have, and what is this guest's own.
use strict;
use warnings;
use IO::Handle;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX qw(strftime);
use Time::HiRes qw(time sleep);

my $shared = 1;
my $own    = slurp('/etc/longhaul-seed') + 0;
my $host   = slurp('/etc/hostname') =~ s/\s//gr;
my @words  = words('/usr/share/common-licenses/GPL-3');
my @paths  = map { s{^/usr/share}{}r } glob('/usr/share/doc/*/copyright');
my @agents = (
	'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
	'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36',
	'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1',
	'kube-probe/1.29', 'curl/8.8.0', 'Prometheus/2.53.0',
);

open my $line, '+<', '/dev/ttyS1' or die "ttyS1: $!";
system 'stty raw -echo < /dev/ttyS1';
$line->autoflush(1);
$SIG{PIPE} = 'IGNORE';

unless (-e '/var/lib/longhaul-filled') {
	fill_postgres();
	fill_redis();
	fill_logs();
	close(create('/var/lib/longhaul-filled'));
}
warm();
print $line "ready\n";

my $pace = 1; # of the work
my @children;
while (defined(my $order = <$line>)) {
	if ($order =~ /^work (\d+)/ && !@children) {
		$pace = $1 / 100;
		my $seed = $own * 100;
		@children = map { child($_, $seed++) } \&web, \&redis, \&postgres, \&applog, \&journal, \&chores;
		print $line "working\n";
	} elsif ($order =~ /^rest/) {
		kill 'TERM', @children;
		waitpid $_, 0 for splice @children;
		print $line "resting\n";
	}
}

# --- content ---

sub slurp { open my $f, '<', $_[0] or die "$_[0]: $!"; local $/; return <$f> }

sub create { open my $f, '>', $_[0] or die "$_[0]: $!"; return $f }

sub words {
	my %seen;
	$seen{lc $_} = 1 for slurp($_[0]) =~ /[A-Za-z]{3,}/g;
	return sort keys %seen;
}

sub pick { return $_[rand @_] }
sub hex_of { return join '', map { sprintf '%04x', rand 65536 } 1 .. $_[0] / 4 }
sub address { return join '.', pick(10, 172, 192, 203), map { int rand 254 } 1 .. 3 }
sub sentence { return join ' ', map { pick(@words) } 1 .. $_[0] }

# A line as nginx writes them.
sub access_line {
	return sprintf qq{%s - - [%s] "%s %s HTTP/1.1" %d %d "%s" "%s"\n}, address(), strftime('%d/%b/%Y:%H:%M:%S +0000', gmtime $_[0]),
	  pick('GET', 'GET', 'GET', 'POST'), pick(@paths), pick(200, 200, 200, 200, 304, 404, 302), 200 + rand 40000, pick('-', '-', 'https://shop.example/'), pick(@agents);
}

# A line of a service that logs JSON.
sub app_line {
	my $at = $_[0];
	return sprintf qq({"time":"%s.%03dZ","level":"%s","logger":"%s","host":"%s","trace":"%s","customer":%d,"took_ms":%.2f,"msg":"%s %s"}\n),
	  strftime('%Y-%m-%dT%H:%M:%S', gmtime $at), ($at - int $at) * 1000, pick('info', 'info', 'info', 'debug', 'warn'),
	  pick('orders.worker', 'orders.api', 'billing', 'auth.session', 'cache'), $host, hex_of(16), rand 50000, rand() ** 3 * 200,
	  pick('order accepted', 'payment captured', 'session renewed', 'cache miss for key', 'request done', 'retrying'), sentence(2);
}

sub auth_line {
	return pick("Failed password for invalid user @{[pick(@words)]} from @{[address()]} port @{[int 1024 + rand 60000]} ssh2",
		"Connection closed by authenticating user root @{[address()]} port @{[int 1024 + rand 60000]} [preauth]",
		"pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)");
}

# --- the first boot ---

sub psql {
	open my $p, '|-', 'runuser', '-u', 'postgres', '--', 'psql', '-qAt', '-v', 'ON_ERROR_STOP=0', '-o', '/dev/null', @_ or die "psql: $!";
	return $p;
}

sub table {
	my ($p, $name, $columns, $rows, $row) = @_;
	print $p "create table $name ($columns);\ncopy $name from stdin;\n";
	print $p join("\t", $row->($_)), "\n" for 1 .. $rows;
	print $p "\\.\n";
}

sub fill_postgres {
	system 'runuser', '-u', 'postgres', '--', 'createdb', 'app';
	my $p = psql('app');
	srand $shared;
	table($p, 'products', 'id int primary key, sku text, name text, price numeric(9,2), about text', 30000,
		sub { ($_[0], hex_of(12), sentence(3), sprintf('%.2f', rand 900), sentence(25)) });
	srand $own;
	table($p, 'customers', 'id int primary key, name text, mail text, joined date, notes text', 10000,
		sub { ($_[0], sentence(2), pick(@words) . '@' . pick(@words) . '.example', sprintf('20%02d-%02d-%02d', 10 + rand 15, 1 + rand 12, 1 + rand 28), sentence(8)) });
	table($p, 'orders', 'id serial primary key, customer int, product int, amount int, state text', 20000,
		sub { ($_[0], int rand 10000, int rand 30000, int 1 + rand 9, pick('new', 'paid', 'sent', 'done')) });
	print $p "select setval('orders_id_seq', 20000);\ncreate index on orders (customer);\ncreate table accounts (id int primary key, balance bigint, changed timestamptz);\n",
	  "insert into accounts select i, 1000, now() from generate_series(1, 10000) i;\nvacuum analyze;\n";
	close $p;
}

sub redis_connect { return IO::Socket::INET->new(PeerAddr => '127.0.0.1:6379') // die "redis: $!" }
sub command { return join '', '*' . @_ . "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @_ }

# Each command that is used answers with one line.
sub redis_send {
	my ($r, @commands) = @_;
	print $r join '', map { command(@$_) } @commands;
	$r->flush;
	<$r> for @commands;
}

sub session { return sprintf '{"user":%d,"csrf":"%s","cart":[%s],"agent":"%s"}', rand 20000, hex_of(32), join(',', map { int rand 30000 } 1 .. rand 8), pick(@agents) }

sub fill_redis {
	my $r = redis_connect();
	for ([$shared, 'product', 20000, sub { sentence(20) }], [$own, 'session', 10000, \&session]) {
		my ($seed, $kind, $count, $value) = @$_;
		srand $seed;
		redis_send($r, map { ['SET', "$kind:$_", $value->()] } $_ * 100 .. $_ * 100 + 99) for 0 .. $count / 100 - 1;
	}
}

# Logs of the days before.
sub fill_logs {
	srand $own;
	mkdir '/var/log/app';
	for (['/var/log/app/app.log.1', \&app_line, 15000], ['/var/log/nginx/access.log.1', \&access_line, 15000]) {
		my ($name, $text, $lines) = @$_;
		my $f  = create($name);
		my $at = 1760000000 + rand 1e6;
		print $f $text->($at += rand 2) for 1 .. $lines;
	}
}

# A server that is up for long has most of its files in memory.
sub warm { system 'find /usr/bin /usr/sbin /usr/share /usr/lib/x86_64-linux-gnu /usr/lib/postgresql /etc /var/lib /var/log -type f -exec cat {} + > /dev/null 2>&1'; sleep 20 }

# --- ten minutes of work ---

sub child {
	my ($f, $seed) = @_;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	srand $seed;
	$f->();
	exit;
}

# every calls f that often each second at full pace, as far as the processor allows.
sub every {
	my ($rate, $f) = @_;
	my $next = time;
	while (1) {
		$f->();
		$next += (0.5 + rand) / $rate / $pace;
		my $now = time;
		$next > $now ? sleep $next - $now : ($next = $now);
	}
}

sub web {
	every(25, sub {
		my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1:80') or return;
		my $path = rand() < 0.05 ? '/' . pick(@words) : pick(@paths);
		print $c "GET $path HTTP/1.0\r\nHost: shop.example\r\nUser-Agent: @{[pick(@agents)]}\r\nX-Request-Id: @{[hex_of(32)]}\r\n\r\n";
		1 while read $c, my $answer, 65536;
	});
}

sub redis {
	my $r = redis_connect();
	every(20, sub {
		redis_send($r, (map { ['SET', 'session:' . int rand 25000, session()] } 1 .. 4), (map { ['INCR', 'views:' . int rand 30000] } 1 .. 8),
			['LPUSH', 'queue:mail', session()], ['LTRIM', 'queue:mail', 0, 2000], ['EXPIRE', 'session:' . int rand 25000, 3600],
			['ZINCRBY', 'top', 1, 'product:' . int rand 30000]);
	});
}

sub postgres {
	my $p = psql('app');
	$p->autoflush(1);
	every(15, sub {
		my ($customer, $product) = (int rand 10000, int rand 30000);
		print $p "begin; insert into orders (customer, product, amount, state) values ($customer, $product, @{[int 1 + rand 9]}, 'new'); ",
		  "update accounts set balance = balance - @{[int rand 50]}, changed = now() where id = $customer; commit;\n",
		  "select sum(amount) from orders where customer = $customer;\n";
		print $p "update orders set state = 'sent' where id in (select id from orders where state = 'paid' limit 20);\n" if rand() < 0.05;
		print $p "update customers set notes = '@{[sentence(8)]}' where id = $customer;\n" if rand() < 0.3;
	});
}

sub applog {
	open my $f, '>>', '/var/log/app/app.log' or die $!;
	$f->autoflush(1);
	every(40, sub { print $f app_line(time) });
}

sub journal {
	my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => '/run/systemd/journal/dev-log') or die "journal: $!";
	every(5, sub { $s->send("<38>" . strftime('%b %e %H:%M:%S', gmtime) . " sshd[@{[int 1000 + rand 9000]}]: " . auth_line()) });
}

sub chores {
	every(1 / 40, sub {
		system 'find /etc /usr/bin -type f | xargs md5sum | sort > /var/tmp/sums';
		system 'tail -n 5000 /var/log/nginx/access.log | gzip > /var/log/nginx/access.log.2.gz';
		system "cut -d' ' -f1 /var/log/nginx/access.log | sort | uniq -c > /var/tmp/top";
	});
}
