"""The words with which learning platforms and university systems head their columns. Data only; header.py reads it.

In each list, the words that are preferred come first: if a file has several columns of one meaning, the first word
of the list wins, whatever the order of the columns. Case, accents, blanks and punctuation do not matter, and
header.py leaves out what stands around a word (`Student's …`, `Your …`, `… *`, `… (required)`).

Sources are the exports of Moodle, Canvas, Blackboard, Brightspace, Sakai, ILIAS, OpenOlat, Stud.IP, GitHub Classroom,
Google Classroom and Forms, Microsoft Forms and Teams, Eventbrite, Gradescope, nbgrader, Banner, HIS, CAMPUSonline,
Apogée, Esse3, and the universities' own lists.
"""

from __future__ import annotations

# The student's id. `id` is the word of this project's own format.
ID = """
    id | student id | id number | student number | student no | student nr | student num | student identifier
    identifier | identification number | identity number | sid | student code | org defined id | university id
    uni id | campus id | campus wide id | cwid | puid | emplid | employee id | banner id | person id | person number
    matriculation number | matriculation no | matric number | matric no | matric | enrolment number
    enrollment number
    enrolment no | enrollment no | enrolment id | enrollment id | registration number | registration no | reg no
    roll number | roll no | index number | index no | admission number | learner id | attendee no | attendee number
    attendee id | participant id | participant number | ticket number | barcode | uid | user id | sis user id | sis id
    integration id | lms user id | lms id | github id | response id | respondent id | unique id | external id | uuid
    matrikelnummer | matrikel nr | matrikel | matr nr | matr | mat nr | mtknr | martikelnummer
    immatrikulationsnummer | matrikel no | id nummer | id nr | identifikationsnummer | identnummer | studentennummer
    studierendennummer | studenten id | studierenden id | teilnehmer id | teilnehmernummer | teilnehmer nr
    personenkennzeichen | personalnummer | personennummer | institutionsnummer | kennnummer | schülernummer
    legi | leginummer | kundennummer
    numéro étudiant | numéro d'étudiant | no étudiant | n étudiant | num étudiant | numéro de l'étudiant
    numéro d'identification | numéro d'identité | noma | matricule | no matricule | code étudiant | code permanent
    cod etu | identifiant étudiant | identifiant | id étudiant | ine | numéro ine | numéro de dossier | no de dossier
    matricola | numero di matricola | numero matricola | n matricola | nr matricola | codice identificativo
    codice studente | id studente | numero id | numero identificativo | codice persona | codice fiscale | cod fiscale
    número de id | número de identificación | número de matrícula | matrícula | n matrícula | nº matrícula
    número de estudiante | número de alumno | código de estudiante | código de alumno | código estudiante
    código del estudiante | id estudiante | id alumno | carné | carnet | legajo | expediente | número de expediente
    boleta | número de boleta | número de control | nia | niu | nip | dni | nif | nie | rut | run | cédula | curp
    número de documento | documento | documento de identidad | identificación | identificador
    učo | ukčo | osobní číslo | osobní číslo studenta | číslo studenta | studijní číslo | identifikační číslo
    id číslo | os číslo | os č | id studenta | osobné číslo | identifikátor
    studentnummer | leerlingnummer | leerlingnr | administratienummer | anr
    identificatienummer | stamnummer | rolnummer
    número de aluno | número mecanográfico | n mecanográfico | nº mecanográfico | nmec | nº de aluno | nº aluno
    n aluno | ra | registro acadêmico | número de identificação | número usp | nº usp | cpf | nusp
    numer albumu | nr albumu | nr indeksu | numer indeksu | album | indeks | numer identyfikacyjny | pesel
    numer studenta
    studienummer | studie nr | personnummer | fødselsnummer | kandidatnummer | opiskelijanumero | opiskelijatunnus
    neptun kód | neptun | hallgatói azonosító | azonosító | oktatási azonosító
    öğrenci no | öğrenci numarası | okul no | număr matricol | nr matricol | cod student | jmbag | broj indeksa
    indeks br | vpisna številka | αμ | αριθμός μητρώου | студенческий билет | номер студента
    номер студенческого билета | номер зачетной книжки | 学籍番号 | 学生番号 | 学号 | 學號 | 学生证号 | 학번
    מספר זהות
    תעודת זהות | ת ז | رقم الطالب | الرقم الجامعي
    id d'étudiant | n matricule | code apprenant | num matricola | id de alumno | id de estudiante | stud id | stud nr
    roster identifier | account id | personal number | matriculation | prüfungsnummer | sis nutzer id
    unique user id | mã sinh viên | mã số sinh viên | mssv | студентський квиток
    id utilisateur sis | id de usuario del sis | id utente sis | id uživatele
"""

# The name with which a student logs in elsewhere: taken as the id if there is no id.
LOGIN = """
    username | user | login | login id | login name | sis login id | user login | netid
    unity id
    github username | github user | github | account | account name | alias | upi | utorid | onyen
    kerberos
    windows login | ad login | uun | cis login | crsid | zid
    benutzername | anmeldename | nutzername | nutzernamen | benutzerkennung | nutzerkennung | kennung
    zugangskennung | hrz kennung | rz kennung | uni id kennung | kürzel | benutzerkürzel | unikennung
    nom d'utilisateur | identifiant de connexion | compte | nom d'usager
    nome utente | utente | nombre de usuario | usuario | nom d'usuari
    uživatelské jméno | uživatel | přihlašovací jméno | xlogin | orion login | používateľské meno
    gebruikersnaam | inlognaam | nome de usuário | nome de utilizador | utilizador
    nazwa użytkownika | użytkownik | brugernavn | brukernavn | användarnamn | käyttäjätunnus | felhasználónév
    kullanıcı adı | nume utilizator | korisničko ime | uporabniško ime | имя пользователя | логин | ユーザー名
    用户名
    사용자 이름 | שם משתמש | اسم المستخدم
    github handle | id de connexion sis | hs kennung
"""

EMAIL = """
    email | email address | e mail adresse | mail | email id | institutional email
    institutional email address
    university email | school email | college email | work email | campus email | primary email
    primary email address
    preferred email | contact email | sis email | user email | emails | mail address | mailadresse | e post
    recipient email | respondent email | upn | user principal name
    uni mail | uni e mail | hochschul e mail | studentische e mail | dienstliche e mail
    e mail uni | e mail dienstlich | elektronische adresse | private e mail | personal email
    adresse de courriel | courriel | adresse courriel | adresse e mail | adresse mail
    adresse électronique | courrier électronique | adresse de messagerie | mél | adresse mél
    indirizzo email | indirizzo di posta elettronica | posta elettronica | email ate
    e mail istituzionale
    mail istituzionale | indirizzo mail
    correo | correo electrónico | dirección de correo | dirección de correo electrónico | dirección email
    dirección de email | correo institucional | e mail institucional | correu
    correu electrònic
    adreça electrònica
    e mailová adresa | školní e mail | univerzitní e mail
    e mailová adresa studenta
    elektronická adresa
    e mailadres | mailadres
    endereço de email | endereço eletrônico | endereço electrónico | correio eletrónico
    correio electrónico
    adres e mail | adres mailowy | poczta elektroniczna | poczta
    e postadress | e postadresse | sähköposti | sähköpostiosoite | e mail cím
    e posta | e posta adresi | adresă de email | adresa e pošte
    эл почта | электронная почта | адрес электронной почты | почта | メールアドレス | メール | 邮箱 | 电子邮件
    电子邮箱
    이메일 | ηλεκτρονικό ταχυδρομείο | דואר אלקטרוני | כתובת דואר אלקטרוני | البريد الإلكتروني
    електронна пошта | адреса електронної пошти | ел пошта
    uni mail adresse | e mail der universität | mail der universität
"""

# Numbers a list's lines: taken as the id if there is nothing better.
COUNT = """
    number | no | nr | num | seq | sequence | row | line | position | index | serial no | sr no | s no
    sl no
    nummer | lfd nr | lfd | laufende nummer | laufnummer | pos | platz nr
    numéro | n ordre | num ordre | numéro d'ordre | číslo | pořadí | poř č | pořadové číslo
    numer | lp | liczba porządkowa | volgnummer | nr crt | sıra | sıra no | номер | 番号 | 序号 | 번호
"""

GIVEN = """
    first name | given name | first names | given names | forename | forenames | first
    preferred first name
    preferred name | legal first name | christian name | fname | given | first name of student | nickname
    vorname | vornamen | rufname | erster vorname | vname
    prénom | prénoms | prénom usuel | prénom 1 | premier prénom | lib pr1 ind
    nome proprio | nome di battesimo | nombre de pila | nombres | primer nombre | nom de pila
    křestní jméno | jméno studenta | krstné meno
    voornaam | voornamen | roepnaam | primeiro nome | prenome
    imię | imiona | pierwsze imię | imię pierwsze
    fornavn | förnamn | tilltalsnamn | etunimi | etunimet | kutsumanimi | keresztnév | utónév | prenume | ime
    ім'я | имя | имена | όνομα | 名 | 이름 | שם פרטי | الاسم الأول
"""

SURNAME = """
    surname | last name | family name | last names | surnames | last | legal last name | lname | sname
    second name | family | family name of student
    nachname | nachnamen | familienname | zuname | nname
    nom de famille | nom d'usage | nom usuel | nom patronymique | patronyme | nom de naissance | lib nom pat ind
    cognome | cognomi
    apellidos | apellido | primer apellido | apellido 1 | apellido paterno | 1er apellido | cognoms
    llinatges | primer cognom
    příjmení | příjmení studenta | priezvisko
    achternaam | familienaam | geslachtsnaam
    sobrenome | apelido | apelidos | último nome | nome de família | sobrenomes
    nazwisko | nazwiska
    efternavn | etternavn | efternamn | sukunimi | vezetéknév | családnév | családi név | soyad | soyadı
    nume de familie
    prezime | priimek | фамилия | прізвище | επώνυμο | επίθετο | 姓 | 姓氏 | 苗字 | 성 | שם משפחה | اسم العائلة
    sn | nachname des teilnehmers
"""

# The Netherlands: `van der` has a column of its own.
BEFORE_SURNAME = """
    tussenvoegsel | tussenvoegsels | voorvoegsel | voorvoegsels | tussenv | surname prefix | last name prefix | infix
"""

# Spain and Latin America: there are two surnames.
AFTER_SURNAME = """
    segundo apellido | apellido 2 | apellido materno | 2º apellido | segon cognom
    2do apellido
"""

# The whole name in one column, perhaps as `Surname, Name`.
FULL = """
    full name | student | student name | student full name | name of student | students name | display name
    complete name | legal name | participant | participant name | attendee | attendee name | learner | learner name
    name original name | sortable name | first and last name | first name and last name | name and surname
    surname and name | last name first name | first name last name | surname first name | surname name | name surname
    surname given name | family name given name | names | users name | user full name | students
    vollständiger name | vor und nachname | vor und zuname | vorname nachname | nachname vorname | name vorname
    vorname name | vorname und nachname | nachname und vorname | name und vorname | vorname und name
    familienname vorname
    ganzer name | voller name | teilnehmer | teilnehmerin | teilnehmende | teilnehmende r
    studierende | studierender | studentin | schüler | schüler in | anzeigename
    name studierende | name des studierenden | name der studierenden | teilnehmername
    nom complet | nom et prénom | nom prénom | prénom nom | prénom et nom | nom et prénoms | étudiant | étudiante
    nom de l'étudiant | nom étudiant | participant e | apprenant | élève
    nome completo | nome e cognome | cognome e nome | cognome nome | nome cognome | nominativo | studente
    studentessa
    studente essa | partecipante | allievo
    nombre completo | apellidos y nombre | apellidos nombre | nombre y apellidos | nombre apellidos
    nombre y apellido
    apellidos y nombres | nombres y apellidos | apellido y nombre | apellido nombre | estudiante | alumno | alumna
    alumno a
    nom i cognoms | cognoms i nom | nombre del alumno | nombre del estudiante | nombre estudiante
    celé jméno | jméno a příjmení | příjmení a jméno | jméno příjmení | příjmení jméno | účastník | studující
    meno a priezvisko | priezvisko a meno | celé meno
    volledige naam | naam student | deelnemer | leerling | voornaam en achternaam
    nome do aluno | nome do estudante | aluno | aluna | aluno a | estudante | nome e sobrenome | nome e apelido
    imię i nazwisko | nazwisko i imię | imię nazwisko | nazwisko imię | pełna nazwa | uczestnik
    fulde navn | fullt navn | fullständigt namn | koko nimi | teljes név | ad soyad | adı soyadı | tam adı
    nume și prenume | nume complet | ime i prezime | prezime i ime | ime in priimek | фио | полное имя
    имя и фамилия
    фамилия имя | ονοματεπώνυμο | 氏名 | 姓名 | 성명 | שם מלא | الاسم الكامل | اسم الطالب
    sort name | real name | họ và tên | họ tên | прізвище та ім'я | піб
    cn | name des teilnehmers | who are you | vorname und familienname
"""

# Is a surname beside a given name, a given name beside a surname, and the whole name alone.
NAME = """
    name | nom | nome | nombre | jméno | meno | naam | nazwa | navn | namn | nimi | név | ad | adı | nume | 名前
    お名前 | 名字 | שם | الاسم
    votre nom | ihr name | wie lautet ihr name | wie heißen sie | wie heißt du | comment vous appelez vous | tu nombre
    su nombre | il tuo nome | qual è il tuo nome | cuál es tu nombre
"""

# Columns that are of no use here, but show that a line is a header.
OTHER = """
    section | sections | group | groups | group name | team | role | roles | status | state | institution | department
    faculty | school | college | campus | course | courses | course name | class | program | programme | major
    branch
    degree | level | year | term | semester | cohort | batch | city | country | address | street | zip | postcode
    phone
    phone number | mobile | mobile phone | telephone | gender | sex | title | salutation | birthday | date of birth
    date | time | timestamp | start time | completion time | submission time | submitted at | last modified time
    last access | last downloaded from this course | first access | availability | score | total score | grade
    grades
    points | total | final grade | final score | current score | current grade | course total | comment | comments
    notes
    feedback | remarks | end of line indicator | order | order date | order type | order id | order no | quantity
    ticket type | ticket quantity | ticket tier | price tier | ticket price | event name | attendee status | currency
    total paid | fees paid | eventbrite fees | buyer first name | buyer last name | buyer surname | buyer email
    buyer name
    purchaser city | company | organization | organisation | job title | middle name | middle initial | pronouns
    prefix
    suffix | enrolled | enrollment date | registration time | registered | completed | attendance | duration
    join time
    leave time | language | timezone | picture | password | type | ip address | late | max score
    gruppe | gruppen | kurs | kurse | rolle | rollen | status der anmeldung | institution abteilung | abteilung
    fakultät
    studiengang | studiengänge | fachsemester | fachrichtung | abschluss | anrede | titel | titel2 | namenszusatz
    geschlecht | geburtsdatum | geburtsort | straße | plz | ort | stadt | land | adr | adresse | telefon | telnr
    handy
    zeitstempel | startzeit | fertigstellungszeit | datum | uhrzeit | anmeldedatum | letzter zugriff | letzter zugang
    verfügbarkeit | bewertung | note | punkte | gesamtpunktzahl | gesamt | kommentar | bemerkung | bemerkungen
    anmerkung
    klasse | jahrgang | firma | organisation firma | zuletzt aus diesem kurs geladen | zuletzt geändert
    groupe | groupes | cours | statut | département | faculté | filière | formation | diplôme | année
    promotion
    civilité | sexe | date de naissance | lieu de naissance | ville | pays | portable | horodateur | heure
    dernier accès | disponibilité | dernier téléchargement de ce cours | note finale | total du cours | commentaire
    commentaires | remarque | pgrm | num fac | régime | niveau
    gruppo | gruppi | corso | corso di laurea | ruolo | stato | dipartimento | facoltà | anno | anno di corso | sesso
    data di nascita | luogo di nascita | città | paese | telefono | cellulare | informazioni cronologiche
    ultimo accesso
    voto | punteggio | commento | note aggiuntive | istituzione | azienda | cfu
    grupo | grupos | curso | rol | estado | departamento | facultad | carrera | titulación | grado | año | sexo
    fecha de nacimiento | ciudad | país | móvil | marca temporal | último acceso | disponibilidad
    puntuación
    calificación | nota | comentario | comentarios | observaciones | institución | asignatura | turno | perfil
    skupina | skupiny | kurz | předmět | role uživatele | stav | fakulta | katedra | obor | studijní obor
    program studia
    studijní program | ročník | semestr | titul | tituly | titul před | titul za | pohlaví | datum narození
    město | země
    telefonní číslo | časová značka | časové razítko | poslední přístup | známka | body | hodnocení | poznámka
    poznámky
    instituce | typ studia | forma studia | obor studia
    groep | groepen | cursus | opleiding | faculteit | rol student | voorletters | geslacht
    geboortedatum
    woonplaats | telefoonnummer | tijdstempel | cijfer | opmerking | opmerkingen | klas
    turma | disciplina | situação | departamento acadêmico | faculdade | data de nascimento | cidade | telefone
    carimbo de data hora | último acesso | pontuação | observações | instituição | grau
    grupa | grupy | kierunek | wydział | rok | semestr studiów | płeć | data urodzenia | miasto | kraj
    sygnatura czasowa | ocena | punkty | uwagi | komentarz | instytucja | drugie imię
    hold | gruppe navn | grupp | ryhmä | csoport | szak | grup | bölüm | группа | факультет | курс | グループ
    学部 | 班级 | 分组
    heure de début | heure de fin | hora de inicio | hora de finalización | ora di inizio | ora di completamento
    čas zahájení | čas dokončení | hora de conclusão | abschnitt | sección | sezione | stg | studium | studienfach
    assignment name | assignment url | student repository url | student repository name | starter code url
    registration date | attended | group id | bestellnr | date naissance | points awarded | points available
"""

# The first cells of lines below a header that are about the columns and not about a student.
ABOUT_COLUMNS = """
    points possible | possible points | max points | maximum points | out of | points | date | due date
    manual posting
    mögliche punkte | erreichbare punkte | maximale punkte | punkte möglich | maximalpunktzahl | punkte | datum
    points possibles | nombre de points possibles | note maximale | puntos posibles | puntos máximos | puntos | fecha
    punti possibili | punteggio massimo | punti | pontos possíveis | pontos | možné body | dosažitelné body | body
    mogelijke punten | punten | możliwe punkty | punkty | mulige point | mulige poeng | möjliga poäng
    mahdolliset pisteet
"""

# What stands before and after a word without changing its meaning, folded as the words are.
BEFORE = (
    *("whatisyour", "pleaseenteryour", "pleaseenter", "enteryour", "enter", "your", "my"),
    *("students", "student", "learners", "learner", "attendees", "attendee", "participants", "participant"),
    *("users", "user", "trainees", "trainee", "pupils", "pupil", "members", "member", "employees", "employee"),
    *("ihre", "ihr", "deine", "dein", "votre", "ton", "tu", "su", "iltuo", "tuo", "uw", "je", "seu", "sua"),
    *("teilnehmer", "studierenden", "studierende", "studenten"),
)
AFTER = (
    *("ofthestudent", "ofstudent", "destudierenden", "studenta", "studente", "etudiant", "estudiante"),
    *("institucional", "institutionnel", "institutionnelle", "universitaire"),
    *("required", "pflichtfeld", "obligatoire"),
)
