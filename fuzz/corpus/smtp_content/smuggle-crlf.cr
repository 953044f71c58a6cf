1
%%
Subject: t

line one
.MAIL FROM:<smug@x>
RCPT TO:<b@y>
DATA
Subject: smuggled

x
.
