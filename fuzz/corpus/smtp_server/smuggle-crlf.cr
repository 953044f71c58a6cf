9
%%
EHLO m
MAIL FROM:<a@b>
RCPT TO:<c@d>
DATA
Subject: t

line one
.MAIL FROM:<smug@x>
RCPT TO:<b@y>
DATA
Subject: smuggled

x
.
QUIT
