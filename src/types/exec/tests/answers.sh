#!/bin/sh
# Runs the worker as TQServer does, asks it, and ends it: sh tests/answers.sh
# It holds for every program that may take the place of bin/{{program}}.
set -eu
cd "$(dirname "$0")/.."
exec perl - "$PWD/bin/{{program}}" <<'END'
use strict;
use warnings;

use File::Temp ();
use IO::Socket::UNIX;
use POSIX ();

my ($program) = @ARGV;
my $directory = File::Temp->newdir;
my $path      = "$directory/socket";
my $failures  = 0;

sub check {
    my ( $claim, $holds ) = @_;
    print $holds ? 'ok' : 'not ok', " - $claim\n";
    $failures++ if !$holds;
    return;
}

# The status and all of the answer to a request.
sub ask {
    my ($target) = @_;
    my $client = IO::Socket::UNIX->new( Peer => $path ) or die "connect: $!\n";
    print {$client} "GET $target HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    local $/;
    my $answer = <$client> // '';
    my ($status) = $answer =~ m{\AHTTP/1\.1 ([0-9]{3})};
    return ( $status // 'none', $answer );
}

my $listener = IO::Socket::UNIX->new( Local => $path, Listen => 16 ) or die "listen: $!\n";
$ENV{LISTEN_FDS}   = 1;
$ENV{WORKER_NAME}  = '{{name}}';
$ENV{WORKER_ROUTE} = '/a/b';
my $worker = fork // die "fork: $!\n";
if ( $worker == 0 ) {
    $ENV{LISTEN_PID} = $$;
    POSIX::dup2( fileno $listener, 3 );
    # Where it was 3 already, it would be closed by exec.
    open( my $kept, '+<&=', 3 ) or die "descriptor 3: $!\n";
    fcntl( $kept, POSIX::F_SETFD, 0 );
    exec {$program} $program or POSIX::_exit(127);
}
close $listener;

$SIG{ALRM} = sub { kill 'KILL', $worker; die "no answer within 20 s\n" };
alarm 20;

my ( $status, $answer ) = ask('/a/b');
check( 'the page is at the route', $status eq '200' );
check( 'it says the name', index( $answer, '{{name}}' ) >= 0 );
check( 'the health path is below the route', ( ask('/a/b/health') )[0] eq '200' );
check( 'what is not there is 404',           ( ask('/a/b/none') )[0] eq '404' );

# A connection that waits for nothing must not hold up the end.
my $idle = IO::Socket::UNIX->new( Peer => $path ) or die "connect: $!\n";
kill 'TERM', $worker;
waitpid $worker, 0;
check( 'SIGTERM ends it, and well', $? == 0 );
exit( $failures ? 1 : 0 );
END
